"""Models and checkpoints on disk: numbers as safetensors, everything else as JSON. Nothing that could run."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quests_zenn._core.checks import DataError, MissingExtraError
from quests_zenn.io.outputs import plain, replacing

if TYPE_CHECKING:
    import torch

WEIGHTS, DOCUMENT = "model.safetensors", "model.json"


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """One file of tensors, with a JSON document in its header; replaces the file that is there.

    Raises
    ------
    MissingExtraError
        Without safetensors.
    DataError
        If the file cannot be written.
    """
    save = _safetensors().save_file
    from safetensors import SafetensorError

    with replacing(path, overwrite=True) as temporary:
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        try:
            save(whole, os.fspath(temporary), metadata={"about": json.dumps(about)})
        except SafetensorError as error:
            raise DataError(f"{path}: cannot be written ({error})") from error


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What `write_tensors` wrote.

    Raises
    ------
    DataError
        If it is no such file.
    """
    _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            about = json.loads((file.metadata() or {})["about"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path}: is no checkpoint of a fit, or is damaged; delete it to begin anew") from error
    return tensors, about


def check_folder(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """`path`, if a model may be written there. Only a folder that holds a model, or nothing, is ever replaced.

    Raises
    ------
    DataError
        Otherwise.
    """
    target = Path(path)
    if not os.fspath(path):
        raise DataError("a model needs a name, got an empty one")
    if os.path.lexists(target):
        if not target.is_dir() or target.is_symlink():
            raise DataError(f"{target}: exists and is no folder; a model is a folder")
        if any(e.name not in (WEIGHTS, DOCUMENT) or not e.is_file() for e in target.iterdir()):
            raise DataError(f"{target}: the folder holds other things than a model; choose another name")
        if not overwrite and any(target.iterdir()):
            raise DataError(f"{target}: exists already; choose another name or say --overwrite")
    parent = target.absolute().parent
    if not parent.is_dir():
        raise DataError(f"{target}: the folder {target.parent} does not exist")
    if not os.access(parent, os.W_OK):
        raise DataError(f"{target}: no permission to write to {target.parent}")
    return target


def write_model(
    path: str | os.PathLike[str], tensors: dict[str, torch.Tensor], document: dict[str, Any], overwrite: bool = False
) -> None:
    """A folder with tensors and a document, written whole or not at all.

    Raises
    ------
    MissingExtraError
        Without safetensors.
    DataError
        See `check_folder`; also if it cannot be written.
    """
    save = _safetensors().save_file
    from safetensors import SafetensorError

    target = check_folder(path, overwrite)
    mark = secrets.token_hex(6)
    temporary, old = target.with_name(f".{mark}.part"), target.with_name(f".{mark}.old")
    try:
        temporary.mkdir()
        save({name: tensor.contiguous() for name, tensor in tensors.items()}, os.fspath(temporary / WEIGHTS))
        # the library makes its files private; a model is as readable as any other output
        (temporary / WEIGHTS).chmod(0o666 & ~_umask())
        text = json.dumps(plain(document), indent=1, allow_nan=False)
        (temporary / DOCUMENT).write_text(text + "\n", encoding="utf-8")
        check_folder(target, overwrite)
        if target.exists():
            os.replace(target, old)
        os.replace(temporary, target)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
    finally:
        if old.exists() and not target.exists():
            os.replace(old, target)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and document of a folder that `write_model` wrote.

    Raises
    ------
    MissingExtraError
        Without safetensors.
    DataError
        If there is no model, or it is damaged.
    """
    folder = Path(path)
    if not folder.is_dir() or not (folder / DOCUMENT).is_file():
        raise DataError(f"{folder}: is no model (a folder with {DOCUMENT} and {WEIGHTS})")
    load = _safetensors().load_file
    from safetensors import SafetensorError

    try:
        document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"), parse_constant=_refuse)
        tensors = load(os.fspath(folder / WEIGHTS))
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise DataError(f"{folder}: the model is damaged ({error})") from error
    if not isinstance(document, dict):
        raise DataError(f"{folder}: {DOCUMENT} is not that of a model")
    return tensors, document


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        missing = "torch" if (error.name or "").startswith("torch") else "safetensors"
        raise MissingExtraError(missing, "zenn") from error
    return safetensors.torch
