"""setup.py asks for what `make test-lowest` installs, and a stranger's tokenizer is refused."""

import ast
import re
import struct
import subprocess
import sys
from pathlib import Path

from packaging.version import Version

from cr_jax.bank import pretrained

ROOT = Path(__file__).resolve().parents[1]


def required():
    """Package -> lowest version in setup.py."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    calls = (n for n in ast.walk(tree) if isinstance(n, ast.Call))
    call = next(n for n in calls if ast.unparse(n.func) == "setup")
    given = next(k.value for k in call.keywords if k.arg == "install_requires")
    return dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", x).groups() for x in ast.literal_eval(given))


def test_the_lowest_versions_are_those_that_are_tested():
    lines = (ROOT / "tests" / "lowest.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {k: Version(v) for k, v in tested.items()} == {
        k: Version(v) for k, v in required().items()
    }


def test_every_package_that_is_imported_is_asked_for():
    """What only comes along with another package may be gone in its next version."""
    names = {"absl": "absl-py", "grain": "grain", "orbax": "orbax-checkpoint"}
    asked, found = set(required()), set()
    for path in [ROOT / "main.py", *(ROOT / "cr_jax").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            found |= {m.split(".")[0] for m in modules}
    others = found - set(sys.stdlib_module_names) - {"cr_jax"}
    others = {names.get(m, m).replace("_", "-") for m in others}
    optional = {"matplotlib", "tiktoken", "sklearn", "threadpoolctl"}
    optional |= {"argcomplete", "datasets", "pyarrow", "tokenizers", "wandb"}
    assert others - asked <= optional, others - asked - optional


def hostile_model() -> bytes:
    """A SentencePiece model whose normalisation table points far outside itself."""
    model = (pretrained.folder() / "tokenizer" / "sentencepiece.model").read_bytes()
    field = lambda number, data: bytes([number << 3 | 2]) + _varint(len(data)) + data
    table = struct.pack("<I", 4 * 256) + struct.pack("<I", 0x7FFFFF00) * 256
    return model + field(3, field(2, table))


def _varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def test_a_hostile_tokenizer_is_refused_and_kills_no_process(tmp_path):
    """In a process of its own: before 0.2.2 SentencePiece ended it by SIGSEGV."""
    (tmp_path / "model").write_bytes(hostile_model())
    code = (
        "import sys; from cr_jax.data import SentencePieceTokenizer\n"
        "try: SentencePieceTokenizer(open(sys.argv[1], 'rb').read())\n"
        "except ValueError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("UserError")
