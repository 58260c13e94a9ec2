/* Fingerprints of near-duplicates: the inner loop of gptwo/corpus/duplicates/minhash.py, where its plain twin
   is and where the hashes are explained.

   Texts come as Arrow lays strings out (UTF-8 bytes, and where each string begins). A text is read
   once: its words are hashed as words.h says, word 5-grams are made of the hashes of words, and each
   is put through all 112 hash functions while they are in the cache. The GIL is released, and memory
   does not grow with the length of a text. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "words.h"

enum { SHINGLE_WORDS = 5, BANDS = 14, ROWS = 8, FUNCTIONS = BANDS * ROWS };
enum { BLOCK = 1024 }; /* shingles between two turns of the hash functions */

typedef struct {
    uint32_t factor[FUNCTIONS], term[FUNCTIONS], least[FUNCTIONS];
} Sketch;

typedef struct {
    uint64_t *at;
    int64_t size, room;
} Hashes;

/* A text on its way. Its shingles go either into `sketch` or to the end of `hashes`. */
typedef struct {
    Sketch *sketch;
    Hashes *hashes;
    uint64_t words[BLOCK + SHINGLE_WORDS - 1]; /* hashes of the latest words */
    int64_t held;                              /* of them */
    int64_t shingles;                          /* so far */
    int failed;                                /* no memory */
} Reader;

/* ---- shingles ---- */

static inline uint64_t shingle(const uint64_t *words, int64_t count) {
    uint64_t sum = 0;
    for (int64_t i = count; i-- > 0;) sum = sum * WORD_FACTOR + words[i];
    return mix(sum);
}

/* Compiled for several instruction sets where the loader can choose among them. Without SSE 4.1 it
   takes seven times as long: there is no 32-bit multiplication of vectors. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__)
__attribute__((target_clones("default", "sse4.1", "avx2", "avx512f")))
#endif
static void take_least(Sketch *restrict sketch, const uint32_t *restrict shingles, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t x = shingles[i];
        for (int f = 0; f < FUNCTIONS; f++) {
            uint32_t value = x * sketch->factor[f] + sketch->term[f];
            sketch->least[f] = value < sketch->least[f] ? value : sketch->least[f];
        }
    }
}

static int room_for(Hashes *hashes, int64_t more) {
    if (hashes->size + more <= hashes->room) return 1;
    int64_t room = (hashes->size + more) * 2;
    uint64_t *grown = realloc(hashes->at, (size_t)room * sizeof *grown);
    if (!grown) return 0;
    hashes->at = grown;
    hashes->room = room;
    return 1;
}

/* Make `count` shingles of `size` words each of the words held. */
static void make(Reader *r, int64_t count, int64_t size) {
    if (r->sketch) {
        uint32_t values[BLOCK];
        for (int64_t i = 0; i < count; i++) values[i] = (uint32_t)shingle(r->words + i, size);
        take_least(r->sketch, values, count);
    } else if (room_for(r->hashes, count)) {
        uint64_t *out = r->hashes->at + r->hashes->size;
        for (int64_t i = 0; i < count; i++) out[i] = shingle(r->words + i, size);
        r->hashes->size += count;
    } else {
        r->failed = 1;
    }
    r->shingles += count;
}

static inline void add_word(Reader *r, uint64_t word) {
    r->words[r->held++] = word;
    if (r->held < BLOCK + SHINGLE_WORDS - 1) return;
    make(r, BLOCK, SHINGLE_WORDS);
    r->held = SHINGLE_WORDS - 1;
    memmove(r->words, r->words + BLOCK, (SHINGLE_WORDS - 1) * sizeof *r->words);
}

/* The shingles of the last words; a text of fewer than five words is one shingle. */
static void finish(Reader *r) {
    if (r->held >= SHINGLE_WORDS)
        make(r, r->held - (SHINGLE_WORDS - 1), SHINGLE_WORDS);
    else if (r->held && !r->shingles)
        make(r, 1, r->held);
}

static void read_text(Reader *r, const uint8_t *at, const uint8_t *end) {
    Words words = {at, end};
    Word word;
    r->held = r->shingles = 0;
    while (next_word(&words, &word)) add_word(r, word.hash);
    finish(r);
}

/* One key a band of rows that two texts must share. */
static void write_keys(const Sketch *sketch, uint64_t *keys) {
    for (int band = 0; band < BANDS; band++) {
        uint64_t sum = 0;
        for (int row = ROWS; row-- > 0;) sum = sum * FACTOR + sketch->least[band * ROWS + row];
        keys[band] = mix(sum + (uint64_t)band);
    }
}

/* ---- Python ---- */

static PyObject *bytes_of(int64_t items) { return PyBytes_FromStringAndSize(NULL, items * ITEM); }

/* The pair of two objects, which it takes over; NULL when one is NULL. */
static PyObject *pair(PyObject *a, PyObject *b) {
    PyObject *made = a && b ? PyTuple_Pack(2, a, b) : NULL;
    Py_XDECREF(a);
    Py_XDECREF(b);
    return made;
}

PyDoc_STRVAR(sketch_doc,
"sketch(data, offsets, functions) -> keys, sizes\n\n"
"Of the texts data[offsets[i]:offsets[i + 1]] (UTF-8; offsets int64) 14 band keys each (uint64; 0\n"
"where a text has no word) and the number of shingles, repeated ones too (int64). `functions`: 112\n"
"factors, then 112 terms (uint32).");

static PyObject *sketch_texts(PyObject *module, PyObject *args) {
    Py_buffer data, offsets, functions;
    if (!PyArg_ParseTuple(args, "y*y*y*", &data, &offsets, &functions)) return NULL;
    PyObject *keys = NULL, *sizes = NULL;
    Sketch sketch;
    int64_t n = count_texts(&data, &offsets);
    if (n >= 0 && functions.len != sizeof sketch.factor + sizeof sketch.term) {
        PyErr_SetString(PyExc_ValueError, "minhash: there must be 112 factors and 112 terms");
    } else if (n >= 0 && (keys = bytes_of(n * BANDS)) && (sizes = bytes_of(n))) {
        const int64_t *edges = offsets.buf;
        const uint8_t *text = data.buf;
        uint64_t *key = (uint64_t *)PyBytes_AS_STRING(keys);
        int64_t *size = (int64_t *)PyBytes_AS_STRING(sizes);
        Py_BEGIN_ALLOW_THREADS
        memcpy(&sketch, functions.buf, sizeof sketch.factor + sizeof sketch.term);
        memset(key, 0, (size_t)(n * BANDS) * sizeof *key);
        Reader reader = {.sketch = &sketch};
        for (int64_t i = 0; i < n; i++) {
            memset(sketch.least, 0xFF, sizeof sketch.least);
            read_text(&reader, text + edges[i], text + edges[i + 1]);
            size[i] = reader.shingles;
            if (reader.shingles) write_keys(&sketch, key + i * BANDS);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&functions);
    return pair(keys, sizes);
}

PyDoc_STRVAR(shingles_doc,
"shingles(data, offsets) -> hashes, ends\n\n"
"The hashes of the shingles of such texts in their order, repeated ones too (uint64), and how many\n"
"there are up to the end of each text (int64).");

static PyObject *shingles_of_texts(PyObject *module, PyObject *args) {
    Py_buffer data, offsets;
    if (!PyArg_ParseTuple(args, "y*y*", &data, &offsets)) return NULL;
    PyObject *found = NULL, *ends = NULL;
    int64_t n = count_texts(&data, &offsets);
    if (n >= 0 && (ends = bytes_of(n))) {
        Hashes hashes = {0};
        Reader reader = {.hashes = &hashes};
        const int64_t *edges = offsets.buf;
        const uint8_t *text = data.buf;
        int64_t *past = (int64_t *)PyBytes_AS_STRING(ends);
        Py_BEGIN_ALLOW_THREADS
        for (int64_t i = 0; i < n && !reader.failed; i++) {
            read_text(&reader, text + edges[i], text + edges[i + 1]);
            past[i] = hashes.size;
        }
        Py_END_ALLOW_THREADS
        found = reader.failed ? PyErr_NoMemory()
                              : PyBytes_FromStringAndSize((char *)hashes.at, hashes.size * ITEM);
        free(hashes.at);
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    return pair(found, ends);
}

static PyMethodDef methods[] = {
    {"sketch", sketch_texts, METH_VARARGS, sketch_doc},
    {"shingles", shingles_of_texts, METH_VARARGS, shingles_doc},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_minhash", NULL, 0, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__minhash(void) {
    prepare_words();
    return PyModule_Create(&module);
}
