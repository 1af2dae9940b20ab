"""Brings what a fresh machine lacks: Java, the venv, the locked jars. Only Python's standard library is used.

bootstrap.py setup              everything below, in order
bootstrap.py java               prints JAVA_HOME of a Java 17 or later
bootstrap.py jars               brings the jars of conf/jars.lock, each checked against its SHA-256
bootstrap.py browser            finds Chromium for the viewer's tests; as root on Debian it installs it
bootstrap.py package FILE       zips lib/sise for Spark's workers, if it changed
"""

from __future__ import annotations

import ast
import hashlib
import math
import os
import platform
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

HERE = Path(__file__).resolve().parent.parent
LOCAL = HERE / ".local"
VENV = HERE / ".venv"
LOCK = HERE / "conf" / "requirements.lock"
JARS_LOCK = HERE / "conf" / "jars.lock"
TESTED_JAVA = (17, 21)


class Problem(Exception):
    """What went wrong and what to do about it."""


def say(line: str) -> None:
    print(f"setup: {line}", file=sys.stderr, flush=True)


def run_telling(
    command: Sequence[str | Path], env: Mapping[str, str], tell: Callable[[str], None], at_most: float = math.inf
) -> subprocess.CompletedProcess[str]:
    """Runs a command whose words are kept; every 15 seconds it is told that it still runs. TimeoutExpired after
    ``at_most`` seconds, as of subprocess.run."""
    started = time.monotonic()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while True:
            try:
                out, err = process.communicate(timeout=15)
                return subprocess.CompletedProcess(command, process.returncode, out, err)
            except subprocess.TimeoutExpired:
                if (seconds := time.monotonic() - started) > at_most:
                    process.kill()
                    raise
                tell(f"  … {seconds:.0f} s")
            except BaseException:
                process.kill()
                raise


# Java ---------------------------------------------------------------------------------------------------------


def java_version(home: Path) -> int:
    """The major version of the Java at ``home``; 0 where there is none."""
    release = home / "release"
    if not (home / "bin" / "java").exists():
        return 0
    text = release.read_text(encoding="utf-8", errors="replace") if release.is_file() else ""
    match = re.search(r'JAVA_VERSION="(?:1\.)?(\d+)', text)
    if match is None:
        try:
            answer = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return 0
        match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    return int(match[1]) if match else 0


def java_candidates() -> list[Path]:
    found = []
    if os.environ.get("JAVA_HOME"):
        found.append(Path(os.environ["JAVA_HOME"]))
    on_path = shutil.which("java")
    if on_path:
        found.append(Path(on_path).resolve().parent.parent)
    for pattern in (
        "/usr/lib/jvm/*",
        "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
        "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    ):
        found += sorted(Path("/").glob(pattern.lstrip("/")))
    for folder in (".jre", ".jdk"):  # where install-jdk unpacks
        found += sorted((Path.home() / folder).glob("*")) + sorted((Path.home() / folder).glob("*/Contents/Home"))
    return found


def find_java() -> Path | None:
    """A Java of a tested version, else any later one. An explicit JAVA_HOME of 17 or later is taken as it is."""
    explicit = os.environ.get("JAVA_HOME")
    if explicit and java_version(Path(explicit)) >= TESTED_JAVA[0]:
        return Path(explicit)
    versions = [(java_version(home), home) for home in java_candidates()]
    tested = [home for version, home in versions if version in TESTED_JAVA]
    later = [home for version, home in versions if version > TESTED_JAVA[0]]
    return next(iter([*tested, *later]), None)


def apt(why: str, *packages: str) -> bool:
    """Installs the packages if this is root's Debian or Ubuntu, and says whether that went well."""
    if not shutil.which("apt-get") or os.geteuid():
        return False
    say(f"{why}: installing {', '.join(packages)} with apt-get")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=env, **quiet)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    return subprocess.run(install, env=env, **quiet).returncode == 0


def bring_java() -> Path:
    """Finds Java, or installs it: as root through apt, else with install-jdk into the user's home."""
    home = find_java()
    if home is not None:
        return home
    for package in ("openjdk-21-jre-headless", "openjdk-17-jre-headless"):
        if apt("no Java 17 or later", package) and (home := find_java()) is not None:
            return home
    say("no Java 17 or later: downloading Temurin 21 into your home (install-jdk)")
    script = "import jdk; print(jdk.install('21', jre=True))"
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "-q", "install-jdk==1.1.0"]
    if subprocess.run(pip).returncode == 0:
        subprocess.run([str(VENV / "bin" / "python"), "-c", script], stdout=subprocess.DEVNULL)
    home = find_java()
    if home is None:
        raise Problem(
            "Java 17 or 21 is needed and could not be installed here. Install it (Debian, Ubuntu: "
            "'sudo apt-get install openjdk-17-jre-headless'; macOS: 'brew install openjdk@21'; others: adoptium.net) "
            "or point JAVA_HOME at one, and run this again."
        )
    return home


# The venv -----------------------------------------------------------------------------------------------------


def bring_venv() -> None:
    """Creates .venv and installs exactly the locked packages, each checked against its hash."""
    if sys.version_info < (3, 11):
        raise Problem(f"Python 3.11 or later is needed; this is {platform.python_version()} ({sys.executable})")
    stamp = VENV / ".sise-lock"
    lock = hashlib.sha256(LOCK.read_bytes() + (HERE / "setup.cfg").read_bytes() + b"compiled").hexdigest()
    # A venv's scripts name its folder: one that was moved or copied would run another checkout, or nothing.
    made = f"{HERE} {sys.version_info[0]}.{sys.version_info[1]}"
    wanted, stood = f"{lock}\n{made}\n", stamp.read_text() if stamp.is_file() else ""
    python = VENV / "bin" / "python"
    if stood == wanted and python.exists():
        return
    say(f"creating {VENV.name} and installing the locked packages (a few minutes the first time)")
    moved = not stood.endswith(f"\n{made}\n")
    if moved or subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:
        _create_venv()
    locked, own = ["--require-hashes", "-r", str(LOCK)], ["--no-deps", "--no-build-isolation", "-e", str(HERE)]
    if (not _uv_install(python, locked) and _pip_install(python, locked)) or _pip_install(python, own):
        raise Problem("pip could not install the packages: see its message above, and run this again")
    _compile(python)
    stamp.write_text(wanted)


def _compile(python: Path) -> None:
    """Compiles what is installed, but for tests, on all cores. Python does so at the first import, but keeps nothing
    where PYTHONDONTWRITEBYTECODE is set, as in most containers: each job then spent two seconds and more on it. What
    does not compile is a template of its package's, or is never imported."""
    say("compiling them, for jobs to start sooner")
    quiet = ["-q", "-q", "-j", "0", "-x", r"/tests?/|/testing/"]
    subprocess.run([python, "-m", "compileall", *quiet, VENV / "lib"], stdout=subprocess.DEVNULL)


# What uv takes of pip's settings, and those that change nothing of what is installed.
_UV_NAMES = {"cert": "SSL_CERT_FILE", "find-links": "UV_FIND_LINKS"}
_ALL_THE_SAME = {"timeout", "default-timeout", "retries", "disable-pip-version-check", "no-cache-dir", "cache-dir"}


def _uv_install(python: Path, what: list[str]) -> bool:
    """Has uv, itself one of the locked packages, install: it fetches and unpacks many at once, which takes a third of
    pip's time. False where pip has settings that uv would not know, or uv fails: pip then does all of it."""
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    if (settings := uv_settings(listed)) is None:
        return False
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as own:
        own.write(locked_package(LOCK.read_text(encoding="utf-8"), "uv"))
        own.flush()
        quiet = ["-q", "--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes", "-r", own.name]
        if subprocess.run([python, "-m", "pip", "install", *quiet], stderr=subprocess.DEVNULL).returncode:
            return False
    env = {"UV_HTTP_TIMEOUT": "180", **settings, **os.environ}
    command = [python.parent / "uv", "pip", "install", "--python", python, *what]
    told = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace", env=env) as uv:
        assert uv.stderr is not None
        for line in map(str.strip, uv.stderr):
            each = re.match(r"[-+~] |Download", line)  # there is such a line for each package
            if not each or (line.startswith("Download") and time.monotonic() - told > 5):
                say(f"  {line}")
                told = time.monotonic()
    return uv.returncode == 0


def locked_package(lock: str, name: str) -> str:
    """The lines of the lock that are of one package."""
    found = re.search(rf"^{re.escape(name)}==.*?(?=^\S|\Z)", lock, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def uv_settings(listed: str) -> dict[str, str] | None:
    """What ``pip config list`` tells, as environment variables of uv; None where there is more, like a proxy or a
    mirror with a login: pip knows best what is meant by it."""
    found = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        name = name.rpartition(".")[2]
        if variable := _UV_NAMES.get(name):
            text = ast.literal_eval(value)
            found[variable] = ",".join(text.split()) if name == "find-links" else text
        elif name not in _ALL_THE_SAME:
            return None
    return found


def _pip_install(python: Path, what: list[str]) -> int:
    """pip's exit code; every ten seconds a line says how far it is (its errors it tells itself, on stderr)."""
    quiet = ["--disable-pip-version-check", "--progress-bar", "off", "--no-compile"]
    command = [str(python), "-m", "pip", "install", *quiet, *what]
    found, told = 0, time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            if line.startswith("Collecting "):
                found += 1
                if time.monotonic() - told > 10:
                    say(f"  package {found}: {line.split()[1].partition('==')[0]}")
                    told = time.monotonic()
            elif line.startswith("Installing collected packages") and found > 1:
                say(f"  unpacking {found} packages (a minute or more)")
    return pip.returncode


def _create_venv() -> None:
    shutil.rmtree(VENV, ignore_errors=True)
    try:
        venv.create(VENV, with_pip=True, symlinks=True)
        return
    except (subprocess.CalledProcessError, SystemExit, OSError, ImportError):
        shutil.rmtree(VENV, ignore_errors=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for package in (f"python{version}-venv", "python3-venv"):  # Debian keeps ensurepip in a package of its own
        made = [sys.executable, "-m", "venv", str(VENV)]
        if apt("this Python has no ensurepip", package) and subprocess.run(made).returncode == 0:
            return
    raise Problem(f"this Python cannot create a venv: install python{version}-venv, and run this again")


# The jars -----------------------------------------------------------------------------------------------------


def locked_jars() -> list[tuple[str, str, str, str, str]]:
    """(set, group, name, version, sha256) of every line of conf/jars.lock."""
    jars = []
    for number, line in enumerate(JARS_LOCK.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        if len(fields) != 3 or fields[1].count(":") != 2 or not re.fullmatch(r"[0-9a-f]{64}", fields[2]):
            raise Problem(f"{JARS_LOCK}:{number}: 'set group:name:version sha256' is expected, not {line!r}")
        jars.append((fields[0], *fields[1].split(":"), fields[2]))
    return jars


def jars_of_spark() -> Path:
    folder = next((VENV / "lib").glob("python3*/site-packages/pyspark/jars"), None)
    if folder is None:
        raise Problem("the venv has no pyspark: run 'make setup'")
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def bring_jars(java: Path) -> None:
    """Brings each missing jar with the Ivy that pyspark ships, and checks every one, new or not."""
    missing = []
    for kind, group, name, version, wanted in locked_jars():
        path = LOCAL / "jars" / kind / f"{name}-{version}.jar"
        if not path.is_file():
            missing.append((path, group, name, version, wanted))
        elif sha256(path) != wanted:
            raise Problem(_wrong_hash(path, wanted))
    kept = {LOCAL / "jars" / k / f"{n}-{v}.jar" for k, _, n, v, _ in locked_jars()}
    for path in (LOCAL / "jars").glob("*/*.jar"):
        if path not in kept:  # from an earlier lock: two versions of a class must not meet
            path.unlink()
    if not missing:
        return
    spark_jars = jars_of_spark()
    say(f"bringing {len(missing)} locked jars")
    with tempfile.TemporaryDirectory() as scratch:
        for kind in dict.fromkeys(path.parent.name for path, *_ in missing):
            wanted_here = [jar for jar in missing if jar[0].parent.name == kind]
            fetched = _fetch(java, spark_jars, Path(scratch) / kind, [jar[1:4] for jar in wanted_here])
            for path, group, name, version, wanted in wanted_here:
                if sha256(fetched / path.name) != wanted:
                    raise Problem(_wrong_hash(fetched / path.name, wanted, f"{group}:{name}:{version}"))
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_suffix(".part")
                shutil.copyfile(fetched / path.name, part)
                part.replace(path)


def _wrong_hash(path: Path, wanted: str, what: str = "") -> str:
    return (
        f"{what or path} is not the file that conf/jars.lock names: its SHA-256 is {sha256(path)}, not {wanted}. "
        + ("Delete it and run this again; if it comes back, " if not what else "If that is so again, ")
        + "somebody changed the jar or the lock: do not use it before you know which."
    )


def _fetch(java: Path, spark_jars: Path, scratch: Path, jars: list[tuple[str, str, str]]) -> Path:
    """A folder with the jars, fetched in one run of Ivy: a set at a time, as two sets may differ in a version."""
    scratch.mkdir()
    wanted = "".join(
        f'<dependency org="{group}" name="{name}" rev="{version}" conf="default->master" transitive="false"/>'
        for group, name, version in jars
    )
    (scratch / "ivy.xml").write_text(
        '<ivy-module version="2.0"><info organisation="sise" module="jars"/>'
        f'<configurations><conf name="default"/></configurations><dependencies>{wanted}</dependencies></ivy-module>'
    )
    command = [str(java / "bin" / "java"), *_proxies(), "-cp", f"{spark_jars}/*", "org.apache.ivy.Main"]
    command += ["-cache", str(scratch / "cache"), "-ivy", str(scratch / "ivy.xml"), "-types", "jar", "bundle"]
    command += ["-retrieve", str(scratch / "[artifact]-[revision].[ext]")]
    for attempt in (1, 2, 3):  # what has arrived is in the cache, so a second attempt brings the rest
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode == 0 and all((scratch / f"{name}-{version}.jar").is_file() for _, name, version in jars):
            return scratch
        time.sleep(2 * attempt)
    lines = [line.strip(" :\t") for line in answer.stdout.splitlines() if re.search("UNRESOLVED|ERROR|not found", line)]
    raise Problem(
        f"{len(jars)} locked jars could not be downloaded: {'; '.join(lines[:3]) or answer.stdout[-300:]}. "
        "Is the network there (behind a proxy: HTTPS_PROXY)? Then run this again."
    )


def _proxies() -> list[str]:
    """The proxies that the environment names, as Java takes them: it does not read those variables itself."""
    named, options = getproxies(), []
    for scheme in ("http", "https"):
        proxy = urlsplit(named.get(scheme, ""))
        if proxy.hostname:
            port = proxy.port or (443 if proxy.scheme == "https" else 80)
            options += [f"-D{scheme}.proxyHost={proxy.hostname}", f"-D{scheme}.proxyPort={port}"]
    if options and (without := named.get("no")):
        hosts = [f"*{h}" if h.startswith(".") else h for h in map(str.strip, without.split(",")) if h]
        options.append(f"-Dhttp.nonProxyHosts={'|'.join(hosts)}")
    return options


# The browser of the viewer's tests ----------------------------------------------------------------------------


def find_browser() -> Path | None:
    """A Chromium or Chrome on PATH or where macOS has it; SISE_BROWSER names another."""
    named = [os.environ["SISE_BROWSER"]] if os.environ.get("SISE_BROWSER") else []
    for name in (*named, "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return Path(found)
    mac = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
    return mac if mac.exists() else None


def bring_browser() -> None:
    """Without one the viewer's tests are skipped: that is said, and no failure."""
    if find_browser() is not None:
        return
    apt("no Chromium", "chromium", "fonts-noto-cjk")
    if find_browser() is None:
        say(
            "no Chromium here, so the viewer's tests in a browser are skipped: install it (Debian: 'sudo apt-get "
            "install chromium fonts-noto-cjk'), or name one in SISE_BROWSER"
        )


# Redis --------------------------------------------------------------------------------------------------------

_FIND_REDIS = """
from sise.errors import ServiceError
from sise.ops.services.redis import find_redis
try:
    find_redis()
except ServiceError as problem:
    print(problem)
"""


def bring_redis() -> None:
    """Where no locked package brings one (off x86-64 Linux, from Python 3.13 on). Batch jobs run without it, so that
    there is none is said, and no failure."""
    if os.environ.get("SISE_REDIS_URL") or not (problem := _without_redis()):
        return
    apt("no Redis", "redis-server")
    if _without_redis():
        say(f"{problem}. Services, the demo and the tests need it; batch jobs do not")


def _without_redis() -> str:
    """What the services say where no Redis is found; '' where one is."""
    python = VENV / "bin" / "python"
    return subprocess.run([python, "-c", _FIND_REDIS], capture_output=True, text=True).stdout.strip()


# The package for Spark's workers --------------------------------------------------------------------------------


def build_package(target: Path) -> None:
    """Zips lib/sise, if a file is newer than the zip."""
    files = sorted(p for p in (HERE / "lib" / "sise").rglob("*") if p.suffix in {".py", ".lua"})
    newest = max(path.stat().st_mtime for path in [*files, Path(__file__)])
    if target.is_file() and target.stat().st_mtime >= newest:
        with zipfile.ZipFile(target) as present:
            if len([name for name in present.namelist() if not name.endswith(".pyc")]) == len(files):
                return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive, tempfile.TemporaryDirectory() as scratch:
        for path in files:
            name = path.relative_to(HERE / "lib").as_posix()
            archive.write(path, name)
            if path.suffix == ".py":  # else each process compiles it; another Python takes the source
                compiled = py_compile.compile(
                    str(path),
                    f"{scratch}/module.pyc",
                    dfile=name,
                    doraise=True,
                    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
                )
                archive.write(str(compiled), f"{name}c")
    part.replace(target)


# Java's classes -------------------------------------------------------------------------------------------------


def keep_classes(java: Path) -> None:
    """Runs the jobs on a few shares and keeps the classes that Java has read and checked for that (class data
    sharing): a job starts 5 s sooner with them. Java itself sees whether they are those of the jars; where they
    cannot be kept, jobs start as ever."""
    archive, note = LOCAL / "build" / "classes.jsa", LOCAL / "build" / "classes.key"
    jars = sorted([*jars_of_spark().glob("*.jar"), *(LOCAL / "jars" / "spark").glob("*.jar")])
    about = [(str(jar), jar.stat().st_size, jar.stat().st_mtime_ns) for jar in jars]
    release = java / "release"
    version = release.read_text(encoding="utf-8", errors="replace") if release.is_file() else ""
    run = [HERE / "spark-submit.sh", "--conf", "spark.eventLog.enabled=false", HERE / "tools" / "warm_up.py"]
    key = hashlib.sha256(
        repr([str(java), version, about, (HERE / "spark-submit.sh").read_bytes(), run[-1].read_bytes()]).encode()
    ).hexdigest()
    known = note.read_text() if note.is_file() else ""
    if known == f"{key} failed" or (known == key and archive.is_file()):
        return
    say("reading Spark's classes once, for jobs to start sooner (one to three minutes)")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        archive.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
            part = Path(scratch) / archive.name
            own = {name: value for name, value in os.environ.items() if not name.startswith("SISE_")}
            env = {**own, "JAVA_HOME": str(java), "SISE_KEEP_CLASSES": str(part), "SISE_LAKE": f"{scratch}/lake"}
            done = run_telling(run, env, say, 600)
            if kept := done.returncode == 0 and part.is_file():
                part.replace(archive)
        note.write_text(key if kept else f"{key} failed")
        problem = "" if kept else (done.stdout + done.stderr).strip()[-300:]
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        say(f"they could not be kept, and jobs start as ever ('rm {note}' and 'make setup' try again): {problem}")


def setup() -> None:
    started = time.monotonic()
    bring_venv()
    java = bring_java()
    bring_jars(java)
    bring_redis()
    build_package(LOCAL / "build" / "sise.zip")
    keep_classes(java)
    if time.monotonic() - started > 5:
        say(f"ready after {time.monotonic() - started:.0f} s")


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["setup"]:
                setup()
            case ["java"]:
                home = find_java()
                if home is None:
                    raise Problem("no Java 17 or later was found: run 'make setup', or point JAVA_HOME at one")
                print(home)
            case ["jars"]:
                bring_jars(bring_java())
            case ["browser"]:
                bring_browser()
            case ["package", target]:
                build_package(Path(target))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except Problem as problem:
        say(str(problem))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
