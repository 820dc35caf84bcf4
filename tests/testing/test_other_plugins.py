"""The fixtures in tests that pytest-asyncio, pytest-trio and anyio's plugin run, each alone and all at once."""

from __future__ import annotations

import textwrap
from importlib.util import find_spec

import pytest

pytest_plugins = ["pytester"]

PACKAGES = {"asyncio": "pytest_asyncio", "trio": "pytest_trio", "anyio": "anyio"}


def only(pytester: pytest.Pytester, *plugins: str, **options: str) -> None:
    """A project with these plugins and none of the others."""
    for name in plugins:
        if find_spec(PACKAGES[name]) is None:
            pytest.skip(f"needs {PACKAGES[name]}, of the extra test")
    others = " ".join(f"-p no:{name}" for name in PACKAGES if name not in plugins)
    if "asyncio" in plugins:
        options["asyncio_default_fixture_loop_scope"] = "function"
    lines = [f"addopts = {others} -p no:cacheprovider", "filterwarnings = error"]
    lines += [f"{name} = {value}" for name, value in options.items()]
    pytester.makeini("\n".join(["[pytest]", *lines]))


def module(pytester: pytest.Pytester, name: str, *parts: str, mark: bool = True) -> None:
    head = f"import pytest\npytestmark = pytest.mark.{name}\n" if mark else "import pytest\n"
    code = "\n".join([head, *map(textwrap.dedent, parts)])
    (pytester.path / f"test_by_{name}.py").write_text(code)


FIXTURES = """
    import threading
    from mellea_sc import start_session

    async def test_a_session(scripted_backend, no_leaks):
        async with start_session(backend=scripted_backend("One two.")) as m:
            assert await (await m.ainstruct("Count.")) == "One two."

    async def test_a_leak(no_leaks):
        leave_a_thread()

    async def test_a_leak_that_is_expected(no_leaks_ignore, no_leaks):
        leave_a_thread()

    async def test_an_answer_too_many(scripted_backend):
        scripted_backend("One two.")

    def leave_a_thread():
        threading.Thread(target=released.wait, name="mine").start()

    released = threading.Event()

    @pytest.fixture(scope="module", autouse=True)
    def release():
        yield
        released.set()

    @pytest.fixture
    def no_leaks_ignore(request):
        return ["thread 'mine'"] if "expected" in request.node.name else []
"""


@pytest.mark.parametrize(
    "plugins", [["asyncio"], ["trio"], ["anyio"], ["asyncio", "trio", "anyio"]], ids="+".join
)
def test_the_fixtures_do_what_they_promise(plugins: list[str], pytester: pytest.Pytester) -> None:
    only(pytester, *plugins)
    for name in plugins:
        module(pytester, name, FIXTURES)
    result = pytester.runpytest_subprocess("-vv")
    runs = sum(2 if name == "anyio" else 1 for name in plugins)
    # the answer too many is an error after a test that passed
    result.assert_outcomes(passed=3 * runs, failed=runs, errors=runs)
    assert str(result.stdout).count("Leaked: 1 left behind:") >= runs
    result.stdout.fnmatch_lines(["*thread 'mine'*made in leave_a_thread*"] * runs)
    result.stdout.fnmatch_lines(["*1 scripted answers were not used: 'One two.'*"] * runs)


AN_HOUR = """
    import anyio

    async def test_an_hour(virtual_time):
        before = anyio.current_time()
        await anyio.sleep(3600)
        assert anyio.current_time() - before == 3600
"""
BACKEND = """
    @pytest.fixture
    def anyio_backend(virtual_time):
        return virtual_time
"""
EVERY_EXAMPLE = """
    from hypothesis import HealthCheck, given, settings, strategies

    @settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(hours=strategies.integers(1, 9))
    async def test_hours(virtual_time, no_leaks, hours):
        await anyio.sleep(3600 * hours)
"""
NO_EFFECT = "*virtual_time has no effect here: this test runs in real time*"
IN_TIME = "--timeout=60"


def test_an_hour_passes_at_once_under_anyios_plugin(pytester: pytest.Pytester) -> None:
    only(pytester, "anyio")
    module(pytester, "anyio", AN_HOUR, BACKEND, EVERY_EXAMPLE)
    pytester.runpytest_subprocess(IN_TIME).assert_outcomes(passed=4)


def test_an_hour_passes_at_once_under_pytest_trio(pytester: pytest.Pytester) -> None:
    only(pytester, "trio")
    module(pytester, "trio", AN_HOUR)
    pytester.runpytest_subprocess(IN_TIME).assert_outcomes(passed=1, skipped=1)


def test_fixtures_of_pytest_trio_run_in_virtual_time_and_their_tasks_are_no_leaks(
    pytester: pytest.Pytester,
) -> None:
    code = """
        import trio

        @pytest.fixture
        async def hours(nursery):
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep(3600)

        async def test_hours(hours, virtual_time, no_leaks):
            assert trio.current_time() == 3600

        async def test_one_left(nursery, no_leaks):
            nursery.start_soon(trio.sleep_forever)

        async def test_two_clocks(autojump_clock, virtual_time):
            pass
    """
    only(pytester, "trio")
    module(pytester, "trio", code)
    result = pytester.runpytest_subprocess(IN_TIME)
    result.assert_outcomes(passed=1, failed=2, skipped=2)
    result.stdout.fnmatch_lines(["*task 'trio.sleep_forever'*", "*has a clock of its own*"])


def test_an_hour_passes_at_once_under_anyios_plugin_beside_the_others(
    pytester: pytest.Pytester,
) -> None:
    only(pytester, "asyncio", "trio", "anyio")
    module(pytester, "anyio", AN_HOUR, BACKEND)
    module(pytester, "trio", AN_HOUR)
    pytester.runpytest_subprocess(IN_TIME).assert_outcomes(passed=3, skipped=1)


def test_pytest_asyncio_cannot_make_time_virtual_and_a_test_is_told_so(
    pytester: pytest.Pytester,
) -> None:
    only(pytester, "asyncio", "anyio")
    module(pytester, "asyncio", AN_HOUR)
    result = pytester.runpytest_subprocess(IN_TIME)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines([NO_EFFECT] * 2)


def test_a_test_that_pytest_asyncio_takes_from_anyio_is_told_so(pytester: pytest.Pytester) -> None:
    only(pytester, "asyncio", "anyio", asyncio_mode="auto")
    module(pytester, "anyio", AN_HOUR, BACKEND)
    result = pytester.runpytest_subprocess(IN_TIME)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines([NO_EFFECT + 'asyncio_mode must be "strict"*'] * 2)


def test_a_hypothesis_test_of_pytest_trio_is_told_that_time_is_real(
    pytester: pytest.Pytester,
) -> None:
    only(pytester, "trio")
    module(pytester, "trio", "import anyio", EVERY_EXAMPLE)
    result = pytester.runpytest_subprocess(IN_TIME)
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines([NO_EFFECT])


def test_a_test_whose_anyio_backend_is_real_is_told_so(pytester: pytest.Pytester) -> None:
    only(pytester, "anyio")
    module(pytester, "anyio", AN_HOUR)
    result = pytester.runpytest_subprocess(IN_TIME)
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines([NO_EFFECT] * 4)


def test_a_test_that_is_not_async_is_told_so_unless_its_fixtures_run_in_virtual_time(
    pytester: pytest.Pytester,
) -> None:
    only(pytester, "anyio")
    sync = """
        import anyio

        @pytest.fixture
        async def slow(virtual_time, anyio_backend):
            await anyio.sleep(3600)

        def test_its_fixture(slow):
            pass

        def test_by_hand(virtual_time):
            anyio.run(anyio.sleep, 3600)
    """
    module(pytester, "anyio", sync, BACKEND, mark=False)
    result = pytester.runpytest_subprocess(IN_TIME)
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines([NO_EFFECT] * 2)
