"""Dead letters have a limit; those that go for newer ones are counted."""

import json

import live
import pytest

from cep.bus.keys import dlq_key, meta_key
from cep.cli import main
from cep.cli.run import summary_text
from cep.errors import UsageError
from cep.ops.doctor import examine
from cep.pipeline import Pipeline, stream

N, KEPT, NODE = 1_000, 300, 100  # the server trims whole nodes of so many entries


def what(**options):
    streams = [stream(live.MARKET, idle=None)]
    return Pipeline("p", [live.jump], streams, **options)


def bad(redis, numbers):
    t = live.START_MS
    live.write(redis, [(live.MARKET, f"{t + i}-0", {"a": str(i)}) for i in numbers])


@pytest.mark.redis
def test_the_oldest_go_and_are_counted_across_runs(redis, redis_url, limits, capsys):
    limits(READ_COUNT=170)
    bad(redis, range(N // 2))
    live.once(redis_url, what(max_dead_letters=KEPT))
    bad(redis, range(N // 2, N))
    summary = live.drained(redis, redis_url, what(max_dead_letters=KEPT))
    rows = [row["entry_id"] for row in live.dead_letters(redis)]
    assert KEPT <= len(rows) < KEPT + NODE
    assert rows == [f"{live.START_MS + i}-0" for i in range(N - len(rows), N)]
    gone = N - len(rows)
    assert summary.total.quarantined == N
    assert summary.trimmed == gone == int(redis.hget(meta_key("p"), "trimmed"))
    assert f"{gone:,} dead letters were removed for newer" in summary_text(summary)
    assert main(["quarantine", "list", "p", "--redis", redis_url]) == 0
    assert f"{gone:9,}  older rows were removed at the limit" in capsys.readouterr().out
    main(["quarantine", "list", "p", "--json", "--redis", redis_url])
    assert json.loads(capsys.readouterr().out)["trimmed"] == gone
    [finding] = [x for x in examine(redis, []) if "had to go" in x.found]
    assert finding.found == f"p: {gone:,} dead letters had to go for newer ones"


@pytest.mark.redis
@pytest.mark.parametrize("options", [{}, {"max_dead_letters": None}])
def test_below_the_limit_or_without_one_all_stay(options, redis, redis_url):
    bad(redis, range(N))
    assert live.drained(redis, redis_url, what(**options)).trimmed == 0
    assert redis.xlen(dlq_key("p")) == N


def test_a_limit_that_keeps_none_is_a_mistake():
    with pytest.raises(UsageError, match="max_dead_letters of pipeline 'p' is 0"):
        what(max_dead_letters=0)
