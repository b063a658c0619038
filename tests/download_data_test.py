"""download_data.sh against a server on this machine: what is laid out, what is refused, and what is said about it."""

import hashlib
import http.server
import os
import pathlib
import re
import socketserver
import subprocess
import sys
import threading

import pytest

from finetune.task_builder import BENCHMARK

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "scripts" / "data_sources.tsv"
FILES = {
    "nsmc/ratings_train.txt": ("movies/main/ratings_train.txt", "id\tdocument\tlabel\n1\t재미있다\t1\n".encode()),
    "question-pair/dev.tsv": ("pairs/main/validation.txt", "question1\tquestion2\tis_duplicate\n몇 시야?\t지금 몇 시?\t0\n".encode()),
    "naver-ner/train.tsv": ("names/main/train.tsv", "지영이는 왔다 .\tPER-B O O\n".encode()),
    "kornli/multinli.train.ko.tsv": ("pairs/main/multinli.tsv", b"sentence1\tsentence2\tgold_label\n" * 1000),
}
UNKNOWN = ("naver-ner/train.tsv", "kornli/multinli.train.ko.tsv")  # no sum in the table
NSMC, QUESTIONS, NER, NLI = FILES


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requested.append(self.path)
        content = self.server.contents.get(self.path)
        if content is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.path in self.server.cut_off else content)

    def log_message(self, *_):
        pass


class Mirror(http.server.ThreadingHTTPServer):
    """Serves `contents` (path -> bytes); a path in `cut_off` gets half of them."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents, self.cut_off, self.requested = {}, set(), []

    def server_bind(self):  # without the base class's look-up of the host's name
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]


@pytest.fixture
def mirror():
    with Mirror() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def download(mirror, tmp_path):
    """download(flag, ...) -> CompletedProcess; the mirror has FILES, the table their sums, and tmp_path/raw gets them."""
    mirror.contents |= {f"/{path}": content for path, content in FILES.values()}
    rows = [f"{file}\t{'-' if file in UNKNOWN else sha256(content)}\t{path}" for file, (path, content) in FILES.items()]
    (tmp_path / "table.tsv").write_text("\n".join(["# made up", *rows]) + "\n")

    def run(*flags: str) -> subprocess.CompletedProcess:
        tasks = "" if any(flag.startswith("--tasks") for flag in flags) else "--tasks=nsmc,question-pair,naver-ner,kornli"
        return script(mirror, f"--output_dir={tmp_path / 'raw'}", f"--sources={tmp_path / 'table.tsv'}", *filter(None, [tasks]), *flags)

    return run


def script(mirror: Mirror, *flags: str) -> subprocess.CompletedProcess:
    command = ["bash", str(ROOT / "scripts" / "download_data.sh"), f"--base_url=http://127.0.0.1:{mirror.server_port}/", *flags]
    environment = {**os.environ, "PYTHON": sys.executable, "no_proxy": "127.0.0.1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def laid_out(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def recorded(folder: pathlib.Path) -> dict[str, str]:
    return {line.split("  ")[1]: line.split("  ")[0] for line in (folder / "SHA256SUMS").read_text().splitlines()}


def test_files_get_the_names_of_the_tasks_and_their_sums_are_written_down(download, tmp_path):
    result = download("--accept_naver_ner_licence")
    assert (result.returncode, result.stderr) == (0, "")
    files = laid_out(tmp_path / "raw")
    files.pop("SHA256SUMS")
    assert files == {file: content for file, (_, content) in FILES.items()}
    assert recorded(tmp_path / "raw") == {file: sha256(content) for file, (_, content) in FILES.items()}
    for file in FILES:
        (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"{file}: ")]
        assert ("UNVERIFIED" in line) == (file in UNKNOWN) and "downloaded" in line


def test_only_the_tasks_that_were_asked_for(download, mirror, tmp_path):
    assert download("--tasks=question-pair").returncode == 0
    assert set(laid_out(tmp_path / "raw")) == {QUESTIONS, "SHA256SUMS"} and mirror.requested == ["/pairs/main/validation.txt"]


def test_what_is_there_is_not_fetched_again(download, mirror, tmp_path):
    download("--accept_naver_ner_licence")
    before, asked = laid_out(tmp_path / "raw"), len(mirror.requested)
    result = download()
    assert result.returncode == 0 and result.stdout.count("already there") == 4 and "agreement" not in result.stdout
    assert laid_out(tmp_path / "raw") == before and len(mirror.requested) == asked == 4


def test_a_wrong_sum_deletes_the_download_and_says_which(download, mirror, tmp_path):
    mirror.contents["/movies/main/ratings_train.txt"] = wrong = b"<html>log in first</html>"
    result = download()
    assert result.returncode == 1
    said, summary = result.stderr.splitlines()
    expected = sha256(FILES[NSMC][1])
    assert all(part in said for part in (f"{NSMC}: ", f":{mirror.server_port}/movies/main/ratings_train.txt", sha256(wrong), expected))
    assert "1 of 4 files could not be had: nsmc/ratings_train.txt" in summary
    assert set(laid_out(tmp_path / "raw")) == {QUESTIONS, NLI, "SHA256SUMS"}, "the others, and nothing half-written"


def test_a_failed_file_comes_with_the_next_call(download, mirror, tmp_path):
    content = mirror.contents.pop("/movies/main/ratings_train.txt")
    result = download()
    assert result.returncode == 1 and "404" in result.stderr.splitlines()[0] and NSMC in result.stderr.splitlines()[-1]
    mirror.contents["/movies/main/ratings_train.txt"] = content
    assert download().returncode == 0
    assert (tmp_path / "raw" / NSMC).read_bytes() == content


@pytest.mark.parametrize("file", [NSMC, NLI])
def test_a_transfer_that_breaks_off_leaves_nothing(download, mirror, tmp_path, file):
    path, content = FILES[file]
    mirror.cut_off.add(f"/{path}")
    result = download()
    assert result.returncode == 1 and f"ended after {len(content) // 2} of {len(content)} bytes" in result.stderr
    assert not any(name.startswith(file) for name in laid_out(tmp_path / "raw"))
    assert file not in recorded(tmp_path / "raw")


def test_a_file_that_differs_is_left_alone(download, mirror, tmp_path):
    (tmp_path / "raw" / "nsmc").mkdir(parents=True)
    (tmp_path / "raw" / NSMC).write_text("my own reviews")
    result = download("--tasks=nsmc")
    assert result.returncode == 1 and "move it away" in result.stderr and sha256(b"my own reviews") in result.stderr
    assert (tmp_path / "raw" / NSMC).read_text() == "my own reviews" and mirror.requested == []


def test_a_file_without_a_known_sum_is_held_to_the_one_written_down(download, mirror, tmp_path):
    download("--tasks=kornli")
    (tmp_path / "raw" / NLI).write_bytes(b"changed")
    assert "SHA256SUMS has " + sha256(FILES[NLI][1]) in download("--tasks=kornli").stderr
    (tmp_path / "raw" / NLI).unlink()
    mirror.contents["/pairs/main/multinli.tsv"] = b"another version"
    result = download("--tasks=kornli")
    assert result.returncode == 1 and "instead of " + sha256(FILES[NLI][1]) in result.stderr
    assert not (tmp_path / "raw" / NLI).exists()


def test_a_damaged_list_of_sums_is_named(download, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "SHA256SUMS").write_bytes(b"\xff no sum\n")
    result = download("--tasks=nsmc")
    assert result.returncode == 1 and "SHA256SUMS holds a line that is not a sum" in result.stderr and "Traceback" not in result.stderr


def test_naver_ner_is_left_out_with_what_its_agreement_asks(download, mirror, tmp_path):
    result = download()
    assert result.returncode == 0 and "naver-ner/train.tsv: left out" in result.stdout
    for part in ("prior consent", "AGREEMENT.md", "--accept_naver_ner_licence", str(tmp_path / "raw" / "naver-ner")):
        assert part in result.stdout
    assert "/names/main/train.tsv" not in mirror.requested and NER not in laid_out(tmp_path / "raw")
    assert download("--tasks=naver-ner").returncode == 1, "nothing of what was asked for"


def test_naver_ner_put_there_by_hand_is_taken_as_it_is(download, tmp_path):
    (tmp_path / "raw" / "naver-ner").mkdir(parents=True)
    (tmp_path / "raw" / NER).write_bytes(b"by hand")
    result = download("--tasks=naver-ner")
    assert result.returncode == 0 and "already there, UNVERIFIED" in result.stdout and "agreement" not in result.stdout
    assert recorded(tmp_path / "raw") == {NER: sha256(b"by hand")}


def test_no_connection_is_one_sentence_a_file(download, mirror):
    mirror.shutdown()
    mirror.server_close()
    result = download("--tasks=nsmc,question-pair")
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 3 and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "--output_dir is required"),
        (["--output_dir=README.md"], "'README.md' is not a folder (--output_dir)"),
        (["--output_dir=x", "--tasks=nsmc,nscm"], "unknown task 'nscm' (--tasks): allowed are nsmc, question-pair, hate-speech"),
        (["--output_dir=x", "--base_url=ftp://mirror"], "must begin with http:// or https:// (--base_url)"),
        (["--output_dir=x", "--sources=no.tsv"], "no file 'no.tsv' (--sources)"),
        (["--output_dir=x", "--sources=README.md", "--tasks=nsmc"], "unknown task 'nsmc'"),
        (["--output_dir", "x"], "unexpected argument '--output_dir'"),
    ],
)
def test_wrong_arguments_end_with_one_sentence_and_code_2(flags, message):
    result = subprocess.run(["bash", "scripts/download_data.sh", *flags], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2 and result.stdout == "" and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("download_data.sh: error: ") and message in result.stderr


def test_a_table_that_is_none_is_named(download, tmp_path):
    (tmp_path / "table.tsv").write_text("nsmc/ratings_train.txt\tabc\tmovies/main/ratings_train.txt\n")
    result = download("--tasks=nsmc")
    assert result.returncode == 1 and "(--sources)" in result.stderr and len(result.stderr.splitlines()) == 1


def test_help_is_the_comment_at_the_top():
    result = subprocess.run(["bash", "scripts/download_data.sh", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0 and "--accept_naver_ner_licence" in result.stdout and "set -euo" not in result.stdout


def rows() -> list[list[str]]:
    return [line.split("\t") for line in TABLE.read_text().splitlines() if not line.startswith("#")]


def test_the_table_names_every_file_of_the_benchmark_once():
    files = [f"{task.name}/{file}" for task in BENCHMARK for file in task.files.values()]
    assert sorted(row[0] for row in rows()) == sorted(files)
    unknown = {row[0] for row in rows() if row[1] == "-"}
    assert unknown == {"naver-ner/train.tsv", "naver-ner/test.tsv", "kornli/multinli.train.ko.tsv"}
    for file, _, path in rows():
        assert re.fullmatch(r"[\w-]+/[\w-]+/(master|[0-9a-f]{40})/[\w./-]+", path), file


def test_the_real_files_arrive_as_they_are(mirror, shared_data, tmp_path):
    """By the table as it is: every sum in it is that of the file beside the checkout."""
    there = {file: path for file, sha, path in rows() if sha != "-"}
    mirror.contents |= {f"/{path}": (shared_data / file).read_bytes() for file, path in there.items()}
    result = script(mirror, f"--output_dir={tmp_path}")
    assert result.returncode == 1 and "1 of 15 files could not be had: kornli/multinli.train.ko.tsv" in result.stderr
    files = laid_out(tmp_path)
    files.pop("SHA256SUMS")
    assert files == {file: (shared_data / file).read_bytes() for file in there} and len(there) == 12
