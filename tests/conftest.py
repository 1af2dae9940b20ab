"""One Spark session for all tests, empty lakes, and the real market where ../shared is there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from sise.calendars import COUNTRIES, Calendar
from sise.indicators.registry import Registry
from sise.lake import Lake
from sise.session import keep_names
from sise.settings import Settings

HERE = Path(__file__).resolve().parent.parent
SHARED = HERE.parent / "shared"
CONF = HERE / "conf"


def session_options() -> dict[str, str]:
    """conf/spark-defaults.conf as every job has it."""
    lines = (CONF / "spark-defaults.conf").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]
    return {key: value.strip() for key, value in pairs}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory):
    jars = sorted((HERE / ".local" / "jars" / "spark").glob("*.jar"))
    assert jars, "no jars in .local/jars/spark: run 'make setup'"
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_CONF_DIR"] = str(CONF)
    builder = SparkSession.builder.master("local[2]").appName("sise tests")
    for key, value in session_options().items():
        builder = builder.config(key, value)
    session = (
        builder.config("spark.jars", ",".join(map(str, jars)))
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.eventLog.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
        .getOrCreate()
    )
    keep_names(session)
    yield session
    session.stop()


# A process takes whole files, and these together: what they share takes minutes to make.
TOGETHER = {
    "tests/spark/test_real_market.py": "real_market",
    "tests/spark/test_real_performance.py": "real_market",
    "tests/spark/test_dashboard_data.py": "sample_lake",
    "tests/live/test_dashboard.py": "sample_lake",
    "tests/live/test_notebooks.py": "sample_lake",
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::", 1)[0]
            return TOGETHER.get(path, path)

    return Files(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Fixtures that keep evidence of a failure (a screenshot) see it here."""
    report = yield
    if call.when == "call" and report.failed:
        item.went_wrong = True
    return report


@pytest.fixture(autouse=True)
def small_plans(request: pytest.FixtureRequest):
    """Compiling a plan, and planning it anew after each stage, cost more than a dozen rows do; the real market has
    both, as every job has."""
    if "spark" not in request.fixturenames:
        yield
        return
    session = request.getfixturevalue("spark")
    small = request.node.get_closest_marker("market") is None
    compile_plans(session, not small)
    yield


def compile_plans(session: SparkSession, on: bool) -> None:
    session.conf.set("spark.sql.codegen.wholeStage", str(on).lower())
    session.conf.set("spark.sql.codegen.factoryMode", "FALLBACK" if on else "NO_CODEGEN")
    session.conf.set("spark.sql.adaptive.enabled", str(on).lower())


@pytest.fixture(scope="session")
def calendars() -> dict[str, Calendar]:
    return {c: Calendar.load(c, CONF / "calendar_overrides.json", HERE / ".local" / "cache") for c in COUNTRIES}


@pytest.fixture(scope="session")
def registry() -> Registry:
    return Registry.load(CONF / "indicators.json")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(lake=str(tmp_path / "lake"), conf=CONF, local=tmp_path / "local")


@pytest.fixture
def lake(spark: SparkSession, registry: Registry, tmp_path: Path) -> Lake:
    return Lake(spark, str(tmp_path / "lake"), registry.extra_columns)


@pytest.fixture(scope="session")
def market_files() -> dict[str, Path]:
    """The real market's files; without ../shared the tests that need them are skipped (in CI: fail)."""
    files = {"KR": SHARED / "market" / "kr_daily.parquet", "US": SHARED / "market" / "us_daily.parquet"}
    if not all(path.is_file() for path in files.values()):
        if os.environ.get("CI") == "true":
            pytest.fail(f"{SHARED}/market is missing, and CI must have it")
        pytest.skip(f"{SHARED}/market is not there: the real market's files stand beside the project")
    return files


@pytest.fixture(scope="session")
def real_market(spark, registry, calendars, market_files, tmp_path_factory):
    """Both real files collected and computed: (lake, outcomes). Read only."""
    from datetime import date

    from sise.indicators.compute import compute_indicators
    from sise.prices.collect import collect_prices
    from sise.sources.base import Request
    from sise.sources.files import FilesSource

    compile_plans(spark, True)
    root = tmp_path_factory.mktemp("real")
    settings = Settings(lake=str(root / "lake"), conf=CONF, local=root / "local")
    lake = Lake(spark, settings.lake, registry.extra_columns)
    outcomes = {}
    for country, market, basis in (("KR", "KOSPI", date(2025, 6, 17)), ("US", "NYSE", date(2020, 1, 10))):
        source = FilesSource(str(market_files[country]), market=market, basis=basis)
        outcomes[country] = collect_prices(spark, lake, source, Request(), settings, calendars)
    outcomes["indicators"] = compute_indicators(spark, lake, registry, calendars)
    return lake, outcomes


@pytest.fixture(scope="session")
def sample_lake(request: pytest.FixtureRequest, registry, calendars, tmp_path_factory) -> Settings:
    """The sample market after a day's jobs (tests/sample_lake.py). Read only. SISE_TEST_LAKE names a folder that keeps
    it from run to run while working on the viewer."""
    from tests.sample_lake import build_lake, settings_of

    kept = os.environ.get("SISE_TEST_LAKE")
    if kept and (Path(kept) / "lake" / "signal_summary").exists():
        return settings_of(CONF, Path(kept))
    spark = request.getfixturevalue("spark")
    compile_plans(spark, False)
    root = Path(kept) if kept else tmp_path_factory.mktemp("sample")
    return build_lake(spark, registry, calendars, CONF, root, 45)
