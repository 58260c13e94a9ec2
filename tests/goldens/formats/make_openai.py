"""Make tests/goldens/formats/openai: a tiny checkpoint by TensorFlow itself, and its logits.

    pip install tensorflow-cpu==2.21.0
    python tests/goldens/formats/make_openai.py

The model is computed here with TensorFlow's own operations, from the description in the paper.
"""

import json
from pathlib import Path

import numpy as np
import tensorflow
import tensorflow.compat.v1 as tf

from gptwo.tokens.tokenizer import Tokenizer

OUT = Path(__file__).parent / "openai"
MERGES = [(b"t", b"h"), (b"th", b"e"), (b" ", b"a")]
V, T, C, H, L = 256 + len(MERGES) + 1, 8, 4, 2, 2  # as in the model file; L layers
IDS = [[0, 5, 258, 259, 17, 3], [100, 255, 256, 257, 1, 2]]


def main() -> None:
    OUT.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    tf.disable_eager_execution()
    made: dict[str, tf.Variable] = {}

    def variable(name: str, shape: list[int]) -> tf.Variable:
        if name not in made:
            values = random.normal(0, 0.5, shape).astype(np.float32)
            made[name] = tf.Variable(values, name=f"model/{name}")
        return made[name]

    def norm(x: tf.Tensor, name: str) -> tf.Tensor:
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        g, b = variable(f"{name}/g", [C]), variable(f"{name}/b", [C])
        return (x - mean) * tf.math.rsqrt(variance + 1e-5) * g + b

    def linear(x: tf.Tensor, name: str, n_in: int, n_out: int) -> tf.Tensor:
        w, b = variable(f"{name}/w", [1, n_in, n_out]), variable(f"{name}/b", [n_out])
        return tf.einsum("bti,io->bto", x, w[0]) + b

    def heads(x: tf.Tensor) -> tf.Tensor:
        return tf.transpose(tf.reshape(x, [2, len(IDS[0]), H, C // H]), [0, 2, 1, 3])

    wte, wpe = variable("wte", [V, C]), variable("wpe", [T, C])
    x = tf.gather(wte, IDS) + wpe[: len(IDS[0])]
    for layer in range(L):
        block = f"h{layer}"
        qkv = linear(norm(x, f"{block}/ln_1"), f"{block}/attn/c_attn", C, 3 * C)
        q, k, v = map(heads, tf.split(qkv, 3, axis=2))
        scores = tf.matmul(q, k, transpose_b=True) / np.sqrt(C // H)
        later = np.triu(np.full((len(IDS[0]), len(IDS[0])), 1e9, np.float32), 1)
        mixed = tf.matmul(tf.nn.softmax(scores - later), v)
        mixed = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [2, len(IDS[0]), C])
        x += linear(mixed, f"{block}/attn/c_proj", C, C)
        inner = linear(norm(x, f"{block}/ln_2"), f"{block}/mlp/c_fc", C, 4 * C)
        x += linear(tensorflow.nn.gelu(inner, approximate=True), f"{block}/mlp/c_proj", 4 * C, C)
    logits = tf.einsum("btc,vc->btv", norm(x, "ln_f"), wte)

    # What a trainer leaves beside the model and a reader must pass over.
    tf.Variable(np.int64(7), name="global_step", trainable=False)
    tf.Variable(np.zeros([V, C], np.float32), name="model/wte/Adam", trainable=False)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(save_relative_paths=True)
        saver.save(session, str(OUT / "model.ckpt"), write_meta_graph=False)
        expected = session.run(logits)
    hparams = {"n_vocab": V, "n_ctx": T, "n_embd": C, "n_head": H, "n_layer": L}
    (OUT / "hparams.json").write_text(json.dumps(hparams) + "\n")
    answer = {"ids": IDS, "last_logits": np.round(expected[:, -1].astype(float), 6).tolist()}
    (OUT.parent / "openai_logits.json").write_text(json.dumps(answer) + "\n")
    Tokenizer(MERGES).save(OUT)
    (OUT / "tokenizer.json").unlink()  # OpenAI's folder has encoder.json and vocab.bpe alone


if __name__ == "__main__":
    main()
