"""A model over HTTP."""

import os
from typing import Annotated

from cyclopts import Parameter

from gptwo.cli.options import PLAIN, Model
from gptwo.console import Call, print_settings, reporter_for
from gptwo.serve.config import ServeConfig

SERVING = ServeConfig()


def serve(
    model: Model,
    /,
    *,
    name: str = "",
    config: Annotated[ServeConfig, Parameter(name="*")] = SERVING,
    call: Call = PLAIN,
) -> None:
    """Completions for OpenAI's clients and lm-evaluation-harness; one line for each request.

    The environment variable GPTWO_API_KEY holds the key that clients must send, if there is one.
    The first Ctrl-C ends it when running requests are answered, a second one at once.

    Parameters
    ----------
    name
        What clients call the model. Default: the last part of MODEL.
    """
    from gptwo.config import with_settings

    config = with_settings(config, call.set)
    if call.dry_run:
        return print_settings(config)
    from gptwo.errors import ResourceError
    from gptwo.language_model import load

    try:
        from gptwo.serve.served import Served
        from gptwo.serve.server import address_of, listen
        from gptwo.serve.server import serve as run
    except ModuleNotFoundError as error:
        raise ResourceError(
            f"gptwo serve needs {error.name}", remedy="pip install 'gptwo[serve]'"
        ) from error

    key = os.environ.get("GPTWO_API_KEY", "")
    reporter = reporter_for(call)
    with listen(config, key) as listener:  # before the model, which may take its time
        loaded = load(model, reporter=reporter)
        served = Served(
            name=name or (model.resolve().name if model.exists() else str(model)),
            model=loaded.model,
            tokenizer=loaded.tokenizer,
            folder=loaded.path,
            weights_sha256=loaded.description["weights_sha256"],
            config=config,
            api_key=key,
        )
        parameters = loaded.description["parameters"]
        reporter.say(
            f"{address_of(listener)} serves {served.name}: {parameters:,} parameters, "
            f"context {loaded.model.config.n_ctx:,}, {'with' if key else 'without'} a key"
        )
        run(served, reporter, listener)
