import pytest

from model import user_modules
from model.command import UserError


def test_a_file_is_run_once(tmp_path):
    (tmp_path / "own.py").write_text("import pathlib\nlog = pathlib.Path(__file__).with_name('log')\nlog.open('a').write('run ')\n")
    first = user_modules.load(str(tmp_path / "own.py"), "my_flag")
    assert user_modules.load(str(tmp_path / "." / "own.py"), "my_flag") is first and (tmp_path / "log").read_text() == "run "
    assert user_modules.load("model.command", "my_flag").UserError is UserError


def test_what_cannot_be_imported_is_a_user_error(tmp_path):
    (tmp_path / "broken.py").write_text("1 +")
    for module in (str(tmp_path / "broken.py"), str(tmp_path / "missing.py"), "missing.module"):
        for _ in range(2):
            with pytest.raises(UserError, match="cannot import '.*(broken.py|missing).*--my_flag"):
                user_modules.load(module, "my_flag")
