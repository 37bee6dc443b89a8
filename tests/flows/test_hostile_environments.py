"""The program under environments that people have: the right result, or one sentence and exit status 2.

Nothing of an environment may end in a traceback, add a line to the output, or have something written elsewhere than in
the outputs. All cases share outputs that hold the answer already, and most a server that runs, so that each costs
little more than the program's start.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.flows.conftest import ROOT
from tests.flows.test_named_server import PAGE, server

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.timeout(300)]

RUN = ("run", "--profile", "smoke", "--sources", "embedded", "--only", "21.11")
CLEAN = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ} | {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
HOLD = "import sys; from pathlib import Path; from flows.servers import prefect_server\n" + (
    "with prefect_server(Path(sys.argv[1])): print('ready', flush=True); sys.stdin.readline()"
)
# Root without its powers: the bits of files hold for it as for anybody.
UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
NAMELESS = ("unshare", "--user", "--map-user=54321", "--map-group=54321", *UNPRIVILEGED)


@dataclass(frozen=True)
class Case:
    """One environment. ``{place}`` in its texts is the folder of the test, with home, tmp, work and outputs in it.

    ``says``: the words of the one sentence; without them the right result is due. ``alone``: with a server of its own.
    """

    name: str
    environment: Mapping[str, str | None] = field(default_factory=dict)
    says: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = RUN
    before: tuple[str, ...] = ()
    shell: str = ""
    alone: bool = False


CLOSED = "http://127.0.0.1:9"  # nobody listens there
DATABASE = "sqlite+aiosqlite:///{place}/work/mine.db"
PREFECT_SETTINGS = {
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": DATABASE,
    "PREFECT_API_DATABASE_CONNECTION_URL": DATABASE,
    "PREFECT_SERVER_API_AUTH_STRING": "a:b",
    "PREFECT_SERVER_API_BASE_PATH": "/prefect/api",
    "PREFECT_SERVER_API_HOST": "10.255.255.1",
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    "PREFECT_HOME": "{place}/work/prefect",
    "PREFECT_PROFILES_PATH": "{place}/work/profiles.toml",
    "WEB_CONCURRENCY": "many",
    "FORWARDED_ALLOW_IPS": "nobody",
}
TOML = (
    '[server.database]\nconnection_url = "'
    + DATABASE
    + '"\n[server.api]\nauth_string = "a:b"\n[logging]\nlevel="LOUD"\n'
)
CLOUD = (
    '[profiles.work]\nPREFECT_API_URL = "https://api.prefect.cloud/api/accounts/a/workspaces/b"\nPREFECT_API_KEY="x"\n'
)

CASES = [
    # Prefect's settings are for other servers.
    Case("settings of a server", PREFECT_SETTINGS, alone=True),
    Case(
        "settings in files",
        files={
            "work/.env": f"PREFECT_SERVER_DATABASE_CONNECTION_URL={DATABASE}\nPREFECT_LOGGING_LEVEL=LOUD\n",
            "work/prefect.toml": TOML,
            "work/pyproject.toml": TOML.replace("[", "[tool.prefect."),
            "home/.prefect/profiles.toml": 'active = "work"\n' + CLOUD,
        },
        alone=True,
    ),
    Case("a file of settings that is none", files={"work/prefect.toml": "[[["}),
    Case(
        "settings of a client",
        {
            "PREFECT_LOGGING_LEVEL": "LOUD",
            "prefect_logging_root_level": "LOUD",
            "PREFECT_API_KEY": "x",
            "prefect_api_auth_string": "a:b",
            "PREFECT_CLOUD_API_URL": "x",
            "PREFECT_TASKS_DEFAULT_RETRIES": "many",
        },
    ),
    Case("a profile of the cloud", {"PREFECT_PROFILE": "work"}, files={"home/.prefect/profiles.toml": CLOUD}),
    Case(
        "inside another run, in test mode, with a profile that is not there",
        {"PREFECT__FLOW_RUN_ID": "x", "PREFECT_TEST_MODE": "1", "PREFECT_DEBUG_MODE": "1", "PREFECT_PROFILE": "none"},
    ),
    # Loopback meets no proxy and no certificate.
    Case("a SOCKS proxy", {"ALL_PROXY": "socks5://127.0.0.1:9", "all_proxy": "socks5h://127.0.0.1:9"}),
    Case(
        "proxies, and exceptions in brackets",
        {"http_proxy": CLOSED, "HTTPS_PROXY": CLOSED, "NO_PROXY": "localhost,[::1]", "REQUESTS_CA_BUNDLE": "/nowhere"},
    ),
    Case(
        "proxies and exceptions that are none, and a key log",
        {
            "ALL_PROXY": "foo://[::",
            "http_proxy": ":::",
            "no_proxy": "http://x:y,fe80::/10",
            "SSLKEYLOGFILE": "/no/file",
        },
    ),
    Case("a certificate that is not there", {"SSL_CERT_FILE": "/nowhere.pem", "SSL_CERT_DIR": "/nowhere"}),
    # Languages, streams, homes.
    Case("locale C", {"LC_ALL": "C", "LANG": "C"}),
    Case(
        "locale C without UTF-8, ASCII streams",
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    ),
    Case(
        "a locale, a time zone, a terminal and MLflow's settings that are none",
        {
            "LC_ALL": "xx_YY.UTF-8",
            "TZ": "Nowhere/Nowhere",
            "COLUMNS": "none",
            "TERM": "",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "soon",
            "MLFLOW_RUN_ID": "x",
            "MLFLOW_WORKSPACE": "y",
        },
    ),
    Case("closed standard input", shell='exec "$@" <&-'),
    Case("closed standard error, all warnings", {"PYTHONWARNINGS": "always"}, shell='exec "$@" 2>&-'),
    Case("all warnings, few open files", {"PYTHONWARNINGS": "always"}, shell='ulimit -n 256; exec "$@"'),
    Case("no HOME", {"HOME": None, "USER": None}),
    Case("a home and a place for temporary files that are not there", {"HOME": "/nowhere/a", "TMPDIR": "/nowhere/b"}),
    Case("an account without name and HOME", {"HOME": None, "USER": None}, before=NAMELESS),
    Case("an unprivileged account", shell='chmod 500 "$HOME"; exec "$@"', before=UNPRIVILEGED),
    Case("umask 077", shell='umask 077; exec "$@"'),
    # Places.
    Case("outputs from here", {"CHAPTER_OUTPUTS": "../outputs"}),
    Case("outputs at home", {"CHAPTER_OUTPUTS": "~/../outputs"}),
    Case("outputs that cannot be written", {"CHAPTER_OUTPUTS": "/proc/x"}, ("CHAPTER_OUTPUTS /proc/x: ",)),
    Case(
        "outputs of another user",
        {"CHAPTER_OUTPUTS": "{place}/theirs"},
        ("CHAPTER_OUTPUTS {place}/theirs: ", "cannot be written"),
        shell='mkdir "$PLACE/theirs"; chmod 555 "$PLACE/theirs"; exec "$@"',
        before=UNPRIVILEGED,
    ),
    Case("outputs within a file", {"CHAPTER_OUTPUTS": "/dev/null/x"}, ("/dev/null is not a folder",)),
    Case("too long a name", {"CHAPTER_OUTPUTS": "/tmp/" + "x" * 300}, ("File name too long",)),
    Case("no home for outputs", {"CHAPTER_OUTPUTS": "~nobody-of-that-name/x"}, ("CHAPTER_OUTPUTS ~nobody",)),
    Case("a byte that is not UTF-8", {"CHAPTER_OUTPUTS": "{place}/\udcff"}, ("not UTF-8",)),
    Case(
        "a store with colons within a file",
        {"CHAPTER_STORE": "{place}/work/a::b/c"},
        ("CHAPTER_STORE {place}/work/a::b/c: ", "is not a folder"),
        files={"work/a::b": ""},
    ),
    Case("a corpus that is not UTF-8 by name", says=("--corpus", "not UTF-8"), arguments=(*RUN, "--corpus", "\udcff")),
    Case(
        "a folder that is gone",
        {"CHAPTER_OUTPUTS": None},
        ("CHAPTER_OUTPUTS outputs",),
        shell='mkdir x; cd x; rmdir ../x; exec "$@"',
    ),
    # Servers that somebody has named.
    Case("nobody there", {"PREFECT_API_URL": "http://127.0.0.1:9/api"}, ("PREFECT_API_URL", "nothing answers")),
    Case("not an address", {"PREFECT_API_URL": "localhost:4200/api"}, ("PREFECT_API_URL", "not an address")),
    Case(
        "a setting for a server that is named",
        {"PREFECT_API_URL": "{api}", "PREFECT_LOGGING_LEVEL": "LOUD"},
        ("PREFECT_LOGGING_LEVEL LOUD: ",),
    ),
    Case(
        "a server that is named, and proxies",
        {
            "PREFECT_API_URL": "{api}",
            "http_proxy": "http://127.0.0.1:9",
            "SSL_CERT_FILE": "/nowhere",
            "ALL_PROXY": "socks5://127.0.0.1:9",
        },
    ),
    Case("the page of that server", {"PREFECT_API_URL": "{page}"}, ("PREFECT_API_URL {page}: ", "write {page}/api")),
]


@dataclass(frozen=True)
class Shared:
    """Outputs with the answer of 21.11 in them, and the API of their server, which runs."""

    outputs: Path
    api: str


def start(place: Path, case: Case, outputs: Path, api: str = "") -> subprocess.CompletedProcess[str]:
    """Run the program as a case says."""
    for name in ("home", "tmp", "work"):
        (place / name).mkdir(exist_ok=True)

    def filled(text: str) -> str:
        values = {"{place}": str(place), "{api}": api, "{page}": api.removesuffix("/api")}
        for name, value in values.items():
            text = text.replace(name, value)
        return text

    for file, text in case.files.items():
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(filled(text))
    standard = {"HOME": f"{place}/home", "TMPDIR": f"{place}/tmp", "USER": "somebody", "PLACE": str(place)}
    environment = {**CLEAN, **standard, "CHAPTER_OUTPUTS": str(outputs)}
    for name, value in case.environment.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = filled(value)
    command = [sys.executable, "-m", "flows", *case.arguments]
    if case.shell:
        command = ["sh", "-c", case.shell, "sh", *command]
    return subprocess.run(
        [*case.before, *command],
        cwd=place / "work",
        env=environment,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=240,
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    place = tmp_path_factory.mktemp("shared")
    outputs = place / "outputs"
    environment = {**CLEAN, "HOME": str(place)}
    done = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(outputs)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout is not None
    assert done.stdout.readline() == "ready\n"
    first = start(place, Case("first"), outputs)
    assert first.returncode == 0, first
    assert "1 of 1 exercises, 0 models trained" in first.stdout
    yield Shared(outputs, (outputs / "prefect" / "server" / "url").read_text() + "/api")
    done.communicate("\n", timeout=60)


def everything(place: Path, outputs: Path) -> dict[str, int]:
    """All files of the test's folder but its outputs, with their sizes."""
    files = (path for path in place.rglob("*") if outputs not in (path, *path.parents))
    return {str(path.relative_to(place)): path.stat().st_size for path in files if path.is_file()}


def possible(before: tuple[str, ...]) -> bool:
    """Whether this machine allows to start something that way."""
    return not before or (
        shutil.which(before[0]) is not None and subprocess.run([*before, "true"], capture_output=True).returncode == 0
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_right_result_or_one_sentence(shared: Shared, tmp_path: Path, case: Case) -> None:
    if not possible(case.before):
        pytest.skip(f"{case.before[0]} is not allowed here")
    outputs = tmp_path / "outputs"
    if case.alone:
        shutil.copytree(shared.outputs, outputs, symlinks=True)
    else:
        outputs.symlink_to(shared.outputs)
    done = start(tmp_path, case, outputs, shared.api)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    given = {Path(file) for file in case.files}
    found = {Path(file) for file in everything(tmp_path, outputs)}
    assert found <= given, "written outside of the outputs"
    if case.says:
        assert (done.returncode, done.stdout) == (2, ""), done
        assert done.stderr.startswith("chapter: "), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        page = shared.api.removesuffix("/api")
        for words in case.says:
            assert words.replace("{place}", str(tmp_path)).replace("{page}", page) in done.stderr
        return
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "1 of 1 exercises, 0 models trained, 0 steps run" in done.stdout
    *_, last = done.stdout.splitlines()
    assert (Path(last).name, Path(last).parent.name) == ("report.html", "latest"), "silence after the report's path"
    assert Path(last).exists()


ODD = ["a?b", "a#b", "a%20b", "a::b", "~", "é ü", "a b", "a\nb"]


@pytest.mark.parametrize("name", ["a?b #%20::~é\nü"])
def test_outputs_of_any_name(shared: Shared, tmp_path: Path, name: str) -> None:
    """Both databases and the store are in it, and nothing beside it."""
    outputs = tmp_path / name
    shutil.copytree(shared.outputs, outputs, symlinks=True)
    for database in ("prefect/prefect.db", "mlflow/mlflow.db"):
        (outputs / database).unlink()
    done = start(tmp_path, Case(name), outputs)
    assert (done.returncode, done.stderr) == (0, ""), done
    for database in ("prefect/prefect.db", "mlflow/mlflow.db"):
        assert (outputs / database).stat().st_size > 100_000
    assert not everything(tmp_path, outputs)


def test_a_store_of_any_name(shared: Shared, tmp_path: Path) -> None:
    store = tmp_path / "s3:a::b?c=%20#d ~é"
    shutil.copytree(shared.outputs / "store", store)
    (tmp_path / "outputs").symlink_to(shared.outputs)
    done = start(tmp_path, Case("store", {"CHAPTER_STORE": str(store)}), tmp_path / "outputs")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "0 steps run" in done.stdout


def test_code_in_a_folder_with_spaces_and_accents_that_cannot_be_written(shared: Shared, tmp_path: Path) -> None:
    if not possible(UNPRIVILEGED):
        pytest.skip("setpriv is not allowed here")
    code = tmp_path / "my cödé #1"
    for package in ("flows", "tasks", "reports", "minigpt"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", code)
    place = tmp_path / "place"
    place.mkdir()
    shell = 'chmod -R a-w "$PYTHONPATH"; "$@"; status=$?; chmod -R u+w "$PYTHONPATH"; exit $status'
    case = Case("code", {"PYTHONPATH": str(code)}, shell=shell, before=UNPRIVILEGED)
    before = everything(code, place)
    done = start(place, case, shared.outputs)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "0 steps run" in done.stdout
    assert everything(code, place) == before


def test_another_server_at_the_address(tmp_path: Path) -> None:
    with server({}, (200, PAGE)) as url:
        case = Case("page", {"PREFECT_API_URL": f"{url}/api"})
        done = start(tmp_path, case, tmp_path / "outputs")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"chapter: PREFECT_API_URL {url}/api: what answers there is not Prefect's API")
    assert done.stderr.count("\n") == 1
