"""The fixtures that users get by installing the library."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def _like_a_users_project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MELLEA_SC_SEED", raising=False)
    pytester.makeini("[pytest]\naddopts = -p no:asyncio -p no:trio\nfilterwarnings = error\n")


VIRTUAL = """
    import anyio, pytest

    @pytest.fixture
    def anyio_backend(virtual_time):
        return virtual_time

    @pytest.mark.anyio
    async def test_an_hour():
        order = []

        async def run(number):
            await anyio.sleep(3600)
            order.append(number)

        async with anyio.create_task_group() as tg:
            for number in range(8):
                tg.start_soon(run, number)
        print("order", order)
        assert fine
"""


def test_virtual_time_runs_a_test_on_both_loops(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(VIRTUAL.replace("fine", "True"))
    pytester.runpytest("--timeout", "10").assert_outcomes(passed=2)


def orders(pytester: pytest.Pytester) -> list[str]:
    return [line for line in pytester.runpytest().outlines if line.startswith("order")]


def test_a_failing_test_says_its_seed_and_the_seed_repeats_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(VIRTUAL.replace("fine", "False"))
    result = pytester.runpytest()
    result.assert_outcomes(failed=2)
    result.stdout.re_match_lines([r"MELLEA_SC_SEED=\d+ repeats the order of tasks"] * 2)
    monkeypatch.setenv("MELLEA_SC_SEED", "7")
    seven = orders(pytester)
    assert len(seven) == 2
    assert orders(pytester) == seven
    monkeypatch.setenv("MELLEA_SC_SEED", "8")
    assert orders(pytester) != seven


def test_no_leaks_fails_a_test_that_leaves_something(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import anyio, pytest

        kept = []

        @pytest.mark.anyio
        @pytest.mark.parametrize("leak", [False, True])
        async def test_it(no_leaks, leak):
            send, receive = anyio.create_memory_object_stream()
            send.close()
            if leak:
                kept.append(receive)
            else:
                receive.close()

        class TestMethods:
            @pytest.mark.anyio
            async def test_it(self, no_leaks):
                await anyio.sleep(0)

        @pytest.fixture(scope="session", autouse=True)
        def close():
            yield
            for stream in kept:
                stream.close()

        def test_sync(no_leaks):
            pass
    """)
    result = pytester.runpytest()
    result.assert_outcomes(passed=4, failed=2, errors=1)
    result.stdout.fnmatch_lines(["*no_leaks is for async tests*", "*Leaked: 1 left behind:*"])


def test_scripted_backend_checks_that_its_answers_were_used(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_unused(scripted_backend):
            assert scripted_backend("one", judge=lambda request: True).calls == []
    """)
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*1 scripted answers were not used: 'one'*"])


def test_the_kit_is_importable_without_pytest_and_loads_nothing_heavy() -> None:
    code = """
        import sys
        import mellea_sc.testing
        heavy = {"pytest", "hypothesis", "trio", "httpx", "jinja2", "pydantic", "rich", "click"}
        sys.exit(", ".join(heavy & set(sys.modules)) or 0)
    """
    lines = "\n".join(line.strip() for line in code.splitlines())
    result = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
