"""``cep resume``: let a rule that has stopped go on."""

from __future__ import annotations

from typing import Annotated

import typer


def resume(
    pipeline: Annotated[str, typer.Argument(help="The pipeline's name.")],
    rule: Annotated[str, typer.Argument(help="The rule's name.")],
    redis: Annotated[
        str | None,
        typer.Option(help="Server, such as redis://127.0.0.1:6379 (CEP_REDIS_URL)."),
    ] = None,
) -> None:
    """Let a rule that has stopped go on.

    A rule stops when its Python functions fail on five events within a minute, or
    when it reaches a limit whose policy is "trip". The others go on meanwhile, and
    what came in the meantime it will not see. A pipeline that runs takes it up
    within a second, one that does not when it is started.

    `cep run` tells which rule has stopped, and why; `cep quarantine list PIPELINE
    --kind rule` lists the events that it failed on.

    The rule begins without the matches that it had begun: events that it has not
    seen might have ended them. Its windows are as if it had never stopped.

    \b
    Example:
      cep resume market-ai price-spike --redis redis://127.0.0.1:6379
    """
    from cep.bus.connection import connect_redis
    from cep.pipeline.resuming import ask_to_resume

    with connect_redis(redis) as client:
        ask_to_resume(client, pipeline, rule)
    print(f"rule {rule} of pipeline {pipeline} goes on, within a second if it runs")
