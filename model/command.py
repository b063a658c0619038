"""What every script shares: errors for users, exit codes, and files that appear whole or not at all.

A script ends with `command.run(main)`. Whatever the user did wrong reaches them as one sentence on stderr with exit code 2;
a fault in the data or the run itself ends with exit code 1; anything else is our bug and keeps its traceback.
"""

import contextlib
import errno
import fcntl
import glob
import json
import os
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, NoReturn

from absl import app, flags, logging

# What flock says where there are no locks, such as on some network file systems.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class UserError(ValueError):
    """Something the user can mend: the message says what is wrong, the value, what is allowed and the flag to change."""

    exit_code = 2


class DataError(UserError):
    """A file that was readable once is damaged, or a run went wrong on its data: no flag was misspelled."""

    exit_code = 1


def run(main: Callable[[], None]) -> None:
    """Parses the flags, calls `main()` and turns user errors into one line on stderr and an exit code."""
    app.run(lambda argv: _guarded(main, argv), flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """absl's own parser exits with code 1 and a page of help; a usage error here is one sentence and code 2."""
    try:
        return flags.FLAGS(list(argv))
    except flags.Error as error:
        _fail(f"{error}", UserError.exit_code)


def _guarded(main: Callable[[], None], argv: Sequence[str]) -> None:
    if len(argv) > 1:
        # absl reads `--flag False` as --flag=True plus a stray word; silently training with it would be worse than stopping.
        _fail(f"unexpected argument {argv[1]!r}: write flags as --name=value (or --noname for a false switch)", UserError.exit_code)
    try:
        main()
    except UserError as error:
        _fail(f"{error}", error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)


def _fail(message: str, code: int) -> NoReturn:
    print(f"{os.path.basename(sys.argv[0])}: error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(code)


def required(name: str) -> Any:
    """Returns the value of flag `name`, or raises UserError when it was not given."""
    value = flags.FLAGS[name].value
    if value in (None, "", []):
        raise UserError(f"--{name} is required: {flags.FLAGS[name].help}")
    return value


def check_name(name: str, flag: str) -> str:
    """Returns `name` if it can be that of a folder within another one; else UserError, quoting `flag`."""
    if name in (".", "..") or re.search(r"[/\\\0]|://", name):
        raise UserError(f"{flag} must be a name without / and \\, not a path, got {name!r} (--{flag})")
    return name


def write_atomically(path: str, data: bytes | str) -> None:
    """Writes `data` (str as UTF-8) under a temporary name and renames it, so that `path` is never half-written."""
    with open_atomically(path) as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextlib.contextmanager
def open_atomically(path: str) -> Iterator[IO[bytes]]:
    """A binary file to write to, which becomes `path` when the context ends, and is gone if it ends with an error.

    What an earlier writer of `path` left when it was killed is removed.
    """
    temporary = f"{path}.tmp-{uuid.uuid4().hex[:8]}"
    if "://" in path:
        with _open_remotely(path, temporary) as file:
            yield file
        return
    try:
        _remove_leftovers(path)
        with _create_locked(temporary) as file:
            yield file
            file.flush()
            os.replace(temporary, path)  # while it is locked
    except OSError as error:
        raise DataError(f"cannot write {path!r}: {error.strerror}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _remove_leftovers(path: str) -> None:
    for leftover in glob.glob(f"{glob.escape(path)}.tmp-{'[0-9a-f]' * 8}"):
        with contextlib.suppress(OSError), open(leftover, "rb") as file:  # another's that is being written is locked
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(leftover)


def _create_locked(path: str) -> IO[bytes]:
    while True:
        file = open(path, "wb")
        with contextlib.suppress(OSError):  # without locks nobody removes leftovers either
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.path.exists(path):
            return file
        file.close()  # taken for a leftover before it was locked


@contextlib.contextmanager
def _open_remotely(path: str, temporary: str) -> Iterator[IO[bytes]]:
    gfile = _gfile()
    try:
        with gfile.GFile(temporary, "wb") as file:
            yield file
        gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        if gfile.exists(temporary):
            gfile.remove(temporary)
        raise


def make_folder(path: str, flag: str) -> None:
    """Makes the folder `path`, if it is not there; UserError, quoting `flag`, if that cannot be done."""
    try:
        if "://" in path:
            _gfile().makedirs(path)
        else:
            os.makedirs(path or ".", exist_ok=True)
    except Exception as error:  # an OSError, or one of TensorFlow's, which may not be imported
        raise UserError(f"cannot make the folder {path!r}: {reason_of(error)} (--{flag})") from error


def reason_of(error: Any) -> str:
    """What an OSError or an error of TensorFlow says, in one line and without the operation that failed."""
    text = getattr(error, "strerror", None) or getattr(error, "message", None) or f"{error}"
    return re.sub(r"\{\{.*?\}\} | \[Op:.*", "", text).strip().partition("\n")[0]


@contextlib.contextmanager
def locked(path: str, busy: str = "") -> Iterator[None]:
    """Keeps other processes from the lock file `path`; the lock ends with the process, however that ends.

    Waits for its turn, or with `busy` raises UserError with that message. Folders in the cloud (gs://...) cannot be locked, and on
    a file system without locks nothing is. Whoever holds the lock may remove the file. DataError if it cannot be made.
    """
    if "://" in path:
        yield
        return
    with contextlib.ExitStack() as stack:
        while True:
            try:
                file = stack.enter_context(open(path, "ab"))
                fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            except BlockingIOError as error:
                raise UserError(busy) from error
            except OSError as error:
                if error.errno not in _WITHOUT_LOCKS:
                    raise DataError(f"cannot write {path!r}: {error.strerror}") from error
                logging.warning("%s: this file system knows no locks, so that nothing keeps a second process out", path)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    break
            # Removed by whoever held it until now: another process may have locked a new one.
        yield


def write_json(path: str, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, atomically."""
    write_atomically(path, json.dumps(value, ensure_ascii=False, indent=1, default=_to_builtin) + "\n")


def _to_builtin(value: Any) -> Any:
    """numpy scalars and arrays to Python's own types, for JSON."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def read_json(path: str, flag: str) -> Any:
    """Reads a JSON file. `flag` is the flag that named it, for the error."""
    opened = _gfile().GFile if "://" in path else open
    exists = _gfile().exists(path) and not _gfile().isdir(path) if "://" in path else os.path.isfile(path)
    if not exists:
        raise UserError(f"no file {path!r} (--{flag})")
    with opened(path, "rb") as file:
        try:
            return json.loads(file.read().decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON in UTF-8 ({error}) (--{flag})") from error


def _gfile() -> Any:
    """tf.io.gfile, imported late: TensorFlow takes seconds to import, and workers that only read text do without it."""
    import tensorflow as tf

    return tf.io.gfile
