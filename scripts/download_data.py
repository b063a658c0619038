"""Fetches, checks and lays out task files: the part of download_data.sh that is not flags. Needs nothing but Python."""

import hashlib
import http.client
import os
import pathlib
import re
import shutil
import sys
import urllib.request
from typing import NamedTuple

SUMS = "SHA256SUMS"
NAVER_NER = "naver-ner"
TIMEOUT = 60  # seconds without a byte
CHUNK = 1 << 20
AGREEMENT = """
naver-ner belongs to NAVER Corp., which gave it to those who took part in its NLP Challenge (2018). Their agreement,
https://github.com/naver/nlp-challenge/blob/master/AGREEMENT.md (Korean; this summary does not replace it), asks:
  - to use the data within the challenge only;
  - not to copy, record, keep, publish, distribute or commercially use them without the company's prior consent;
  - to give back or destroy them when the challenge is over;
  - in papers, to name the challenge and to show neither examples nor particulars of the data, only structure and statistics.
So it is not downloaded unless you pass --accept_naver_ner_licence, by which you say that you have read the agreement and hold
that consent. If you have the files already, put them into {folder} as train.tsv and test.tsv: a sentence a line, its words
between single spaces, a tab, and a tag for each word (PER-B, PER-I, O), without a header.
"""


class DownloadError(Exception):
    """Why a file could not be had, in one sentence."""


class Source(NamedTuple):
    """A row of the table."""

    file: str  # where it goes, below the output folder: TASK/NAME
    sha256: str  # of the file; "-" where it is not known
    path: str  # where it is published, below the base URL

    @property
    def task(self) -> str:
        return self.file.split("/")[0]


def read_sources(table: pathlib.Path) -> list[Source]:
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    for row in rows:
        if len(row) != 3 or not re.fullmatch("-|[0-9a-f]{64}", row[1]):
            sys.exit(f"download_data.sh: error: a row of {table} is not 'file, SHA-256 or -, path' between tabs: {row} (--sources)")
    return [Source(*row) for row in rows]


def sha256_of(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_sums(path: pathlib.Path) -> dict[str, str]:
    """file -> SHA-256, from what sha256sum writes."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for line in lines:
        if not re.fullmatch("[0-9a-f]{64} [ *].+", line):
            raise DownloadError(f"{path} holds a line that is not a sum and a file: {line[:80]!r}; mend or delete it")
    return {line[66:]: line[:64] for line in lines}


def write_sums(path: pathlib.Path, sums: dict[str, str]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text("".join(f"{sha256}  {file}\n" for file, sha256 in sorted(sums.items())), encoding="utf-8")
    os.replace(part, path)


def fetch(url: str, path: pathlib.Path, expected: str | None) -> str:
    """Downloads `url` to `path` in one step, so that there is all of the file or nothing; returns its SHA-256."""
    part = path.with_name(path.name + ".part")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response, part.open("wb") as file:
            shutil.copyfileobj(response, file, CHUNK)
        promised, size = response.headers["Content-Length"], part.stat().st_size
        if promised is not None and size != int(promised):
            raise DownloadError(f"{url}: the transfer ended after {size} of {promised} bytes")
        sha256 = sha256_of(part)
        if expected not in (None, sha256):
            raise DownloadError(f"{url}: SHA-256 is {sha256} instead of {expected}; the download was deleted")
        os.replace(part, path)
    except (OSError, http.client.HTTPException, ValueError) as error:  # no route, 404, a connection that broke, a full disk, no URL
        raise DownloadError(f"{url}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return sha256


def obtain(source: Source, output_dir: pathlib.Path, base_url: str) -> str:
    """Makes sure that the file is there and right, writes down its sum, and returns what to tell about it."""
    path, sums = output_dir / source.file, read_sums(output_dir / SUMS)
    known = source.sha256 != "-"
    expected = source.sha256 if known else sums.get(source.file)
    if path.exists():
        done, sha256 = "already there", sha256_of(path)
        if expected not in (None, sha256):
            whose = "instead of" if known else f"and {SUMS} has"
            raise DownloadError(f"{path} is there, but its SHA-256 is {sha256} {whose} {expected}; move it away to have it downloaded")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        sha256 = fetch(f"{base_url}/{source.path}", path, expected)
        done = f"downloaded, {path.stat().st_size:,} bytes"
    if sums.get(source.file) != sha256:
        write_sums(output_dir / SUMS, sums | {source.file: sha256})
    if known:
        return f"{done}, SHA-256 right"
    return f"{done}, UNVERIFIED: no SHA-256 of it is known; {SUMS} has {sha256}, against which later runs check"


def main(output_dir: pathlib.Path, tasks: list[str], accepted: bool, base_url: str, table: pathlib.Path) -> int:
    """Returns the exit code: 0, or 1 if a file could not be had or all were left out."""
    wanted = [source for source in read_sources(table) if source.task in tasks]
    restricted = [source for source in wanted if source.task == NAVER_NER and not (output_dir / source.file).exists()]
    left_out = [] if accepted else restricted
    if restricted:
        print(AGREEMENT.format(folder=output_dir / NAVER_NER))
    failed = []
    for source in wanted:
        try:
            done = "left out (--accept_naver_ner_licence)" if source in left_out else obtain(source, output_dir, base_url)
            print(f"{source.file}: {done}", flush=True)
        except (DownloadError, OSError) as error:
            failed.append(source.file)
            print(f"{source.file}: {error}", file=sys.stderr)
    if failed:
        print(f"download_data.sh: error: {len(failed)} of {len(wanted)} files could not be had: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or left_out == wanted else 0


if __name__ == "__main__":
    folder, names, answer, prefix, table_file = sys.argv[1:]
    try:
        sys.exit(main(pathlib.Path(folder), names.split(","), answer == "yes", prefix, pathlib.Path(table_file)))
    except KeyboardInterrupt:
        sys.exit(130)
