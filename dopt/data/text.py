"""Text, character by character: a sample is `context` characters in a row and, for each of them, the one that follows.

A text of M characters makes ⌊(M - 1) / context⌋ samples that do not overlap; the last tenth of them is held out. The
vocabulary is the set of all characters of the text, in the order of their code points.

`text` needs no file: it reads what scikit-learn says, in English, of its data sets (43 000 characters in version 1.9).
Another version of scikit-learn may have other texts, so compare runs of one version, or give a `file` of your own.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from dopt import reading
from dopt.data.base import SETS, Dataset, frozen
from dopt.data.files import find, place
from dopt.types import InputError

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@SETS.register(
    source="scikit-learn, descriptions of its data sets; or a file of your own",
    kind="text",
    files=lambda file, **options: () if file is None else (Path(file),),
)
def text(*, file: str | None = None, context: int = 32) -> Dataset:
    """Text by characters: that of `file` (UTF-8), else 43 000 characters of English that come with scikit-learn."""
    if file is None:
        return samples_of(_descriptions(), context, "the default text")
    return samples_of(reading.text("data.file", file, hint="; give the path of a text"), context, file)


@SETS.register(
    source="Karpathy, char-rnn, 2015; " + URL, kind="text", files=lambda **options: (place("tinyshakespeare.txt"),)
)
def shakespeare(*, context: int = 64) -> Dataset:
    """Shakespeare's plays by characters, 1 115 394 of 65 kinds: 15 686 samples to train at the default context."""
    path = find("tinyshakespeare.txt", URL, SHA256)
    return samples_of(reading.text("data", path), context, path)


def samples_of(content: str, context: int, source: str | Path) -> Dataset:
    """The samples of a text: x [N, context], y [N, context] int32, numbers of characters; `source` is for errors."""
    if context < 1:
        raise InputError(f"data.context: must be at least 1, got {context}")
    kinds, tokens = np.unique(np.frombuffer(content.encode("utf-32-le"), np.uint32), return_inverse=True)
    count = (len(tokens) - 1) // context
    if count < 2:
        raise InputError(
            f"data.context: {source} has {len(tokens)} characters, two samples of context={context} need {2 * context + 1}; use a smaller context or a longer text"
        )
    if len(kinds) < 2:
        raise InputError(f"data: {source} repeats one character, got nothing to learn; use another text")
    x, y = (tokens[start : start + count * context].reshape(count, context) for start in (0, 1))
    learnt = count - max(1, count // 10)
    return Dataset(frozen(x=x[:learnt], y=y[:learnt]), frozen(x=x[learnt:], y=y[learnt:]), len(kinds))


def _descriptions() -> str:
    folder = resources.files("sklearn.datasets.descr")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".rst")), key=lambda f: f.name)
    return "".join(f.read_text(encoding="utf-8") for f in files)
