"""Tables of numbers: what is read, what is refused, and what units are worth."""

from __future__ import annotations

import gzip
import math
import warnings
from pathlib import Path

import numpy as np
import pytest

from quests_zenn import DataError, DataWarning
from quests_zenn.io.tables import KINDS, UNITS, check_unit, convert, nearest, read_table, unit_of, write_table

PLAIN = "volume_A3,T_K,F_eV\n10.5,300,-1.25\n11.5,400,nan\n"


def made(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(folder: Path, content: str | bytes, sentence: str, name: str = "t.csv") -> None:
    path = made(folder, content, name)
    with pytest.raises(DataError, match=sentence) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.rstrip("\n"),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.replace("nan", ""),
        PLAIN.replace("nan", " NA "),
        PLAIN.replace(",", " , "),
        PLAIN.replace("volume_A3", '"volume_A3"').replace("10.5", '"10.5"'),
    ],
    ids=["plain", "CRLF", "CR", "no end", "BOM", "empty cell", "NA", "blanks", "quotes"],
)
def test_numbers_are_read(content: str | bytes, tmp_path: Path) -> None:
    table = read_table(made(tmp_path, content))
    assert table.names == ("volume_A3", "T_K", "F_eV")
    assert (len(table), table.lines.tolist()) == (2, [2, 3])
    np.testing.assert_array_equal(table.column("volume_A3"), [10.5, 11.5])
    np.testing.assert_array_equal(table.column("T_K"), [300.0, 400.0])
    np.testing.assert_array_equal(table.column("F_eV"), [-1.25, np.nan])
    assert all(values.dtype == np.float64 for values in table.columns.values())


def test_lines_are_counted_from_the_top(tmp_path: Path) -> None:
    content = "# made by hand\n\n" + PLAIN.replace("11.5", "\n11.5")
    assert read_table(made(tmp_path, content)).lines.tolist() == [4, 6]
    quoted = read_table(made(tmp_path, 'a_K,"long\nname"\n1,2\n3,4\n'))
    assert quoted.lines.tolist() == [3, 4]
    assert quoted.names == ("a_K", "long\nname")


def test_compressed_by_name(tmp_path: Path) -> None:
    packed = gzip.compress(PLAIN.encode())
    assert read_table(made(tmp_path, packed, "t.csv.gz")).column("T_K").tolist() == [300.0, 400.0]
    refused(tmp_path, packed, r"t\.csv: is compressed; its name must end in \.gz")
    refused(tmp_path, PLAIN, r"t\.csv\.gz: cannot be read \(Not a gzipped file", "t.csv.gz")
    refused(tmp_path, packed[:-12], r"t\.csv\.gz: cannot be read", "t.csv.gz")


@pytest.mark.parametrize(("separator", "told"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_are_told(separator: str, told: str, tmp_path: Path) -> None:
    path = made(tmp_path, PLAIN.replace(",", separator))
    with pytest.warns(DataWarning, match=rf"t\.csv: columns are separated by {told}, not commas"):
        table = read_table(path)
    assert table.column("F_eV")[0] == -1.25
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_table(made(tmp_path, PLAIN))


def test_decimal_commas_are_not_read(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="semicolons"):
        table = read_table(made(tmp_path, "V_A3;T_K\n10,5;300\n"))
    with pytest.raises(DataError, match=r"line 2: V_A3 must be a number, got '10,5'; numbers have a decimal point"):
        table.column("V_A3")


def test_text_is_refused_only_when_asked_for(tmp_path: Path) -> None:
    table = read_table(made(tmp_path, "phase,T_K,F_eV\nsolid,300,1\nliquid,4o0,inf\n"))
    assert table.names == ("phase", "T_K", "F_eV")
    for name, sentence in (
        ("phase", r"t\.csv, line 2: phase must be a number, got 'solid'$"),
        ("T_K", r"t\.csv, line 3: T_K must be a number, got '4o0'$"),
        ("F_eV", r"t\.csv, line 3: F_eV must be finite, got infinity"),
        ("T_k", r"t\.csv: has no column 'T_k'; did you mean T_K\?"),
        ("volume", r"t\.csv: has no column 'volume'; there are phase, T_K, F_eV"),
    ):
        with pytest.raises(DataError, match=sentence):
            table.column(name)


@pytest.mark.parametrize("cell", ["1_000", "٣", "0x10", "1.2.3", "true", "1e", "300 K"])
def test_cells_that_are_no_numbers(cell: str, tmp_path: Path) -> None:
    table = read_table(made(tmp_path, f"T_K,F_eV\n{cell},1\n"))
    with pytest.raises(DataError, match="line 2: T_K must be a number"):
        table.column("T_K")


def test_an_index_that_nobody_named_is_passed_over(tmp_path: Path) -> None:
    table = read_table(made(tmp_path, ",T_K,F_eV,\n0,300,1,\n1,400,2,\n"))
    assert table.names == ("T_K", "F_eV")
    assert table.column("F_eV").tolist() == [1.0, 2.0]


def test_some_rows(tmp_path: Path) -> None:
    table = read_table(made(tmp_path, "T_K,F_eV\n1,5\n2,6\n3,7\n"))
    part = table.rows(table.column("T_K") > 1.5)
    assert part.column("F_eV").tolist() == [6.0, 7.0]
    assert part.lines.tolist() == [3, 4]
    assert table.rows(np.array([2, 0])).column("F_eV").tolist() == [7.0, 5.0]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty; a table has names of columns in its first line"),
        ("\n\n# nothing\n", "is empty"),
        ("a,b\n", "has a header and no rows"),
        ("1,2\n3,4\n", "has no header; names of columns belong in its first line"),
        ("a,b,a\n1,2,3\n", "line 1: two columns have the name 'a'"),
        ("a,b\n1,2\n3\n", "line 3: has 1 cell, and the header 2 names"),
        ("a,b\n1,2,3\n", "line 2: has 3 cells, and the header 2 names"),
        ('a,b\n1,"2\n', r"line 2: cannot be read as csv \("),
        (b"a,b\n\xff\xfe,1\n", "is no text in UTF-8"),
        (PLAIN.encode("utf-16"), "is no text in UTF-8"),
    ],
)
def test_bad_files(content: str | bytes, sentence: str, tmp_path: Path) -> None:
    refused(tmp_path, content, sentence)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder, a pipe or a device"):
        read_table(tmp_path)


# --- units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("volume_A3", "A3"), ("T_K", "K"), ("entropy_eV_K", "eV_K"), ("P_eV_A3", "eV_A3"), ("U_kJ_mol", "kJ_mol"),
        ("S_meV_K", "meV_K"), ("S_kB", "kB"), ("S_J_mol_K", "J_mol_K"), ("F_meV", "meV"), ("V_bohr3", "bohr3"),
        ("T", None), ("K", None), ("mu_0", None), ("FeV", None), ("T_k", None), ("", None),
    ],
)  # fmt: skip
def test_unit_of_a_name(name: str, unit: str | None) -> None:
    assert unit_of(name) == unit


@pytest.mark.parametrize("unit", KINDS)
def test_every_unit_is_found_and_counted_once(unit: str) -> None:
    assert unit_of(f"x_{unit}") == unit
    assert [kind for kind in UNITS if unit in UNITS[kind]] == [KINDS[unit]]
    assert check_unit(unit, KINDS[unit]) == unit


def test_what_units_are_worth() -> None:
    """Against the constants of ase, which are those of CODATA 2014."""
    from ase import units

    expected = {
        "A3": 1.0, "nm3": units.nm**3, "pm3": 1e-6, "bohr3": units.Bohr**3, "cm3_mol": 1e24 / units.mol,
        "K": 1.0, "mK": 1e-3, "kK": 1e3,
        "eV": 1.0, "meV": 1e-3, "Ha": units.Ha, "mHa": 1e-3 * units.Ha, "Ry": units.Ry, "mRy": 1e-3 * units.Ry,
        "kJ_mol": units.kJ / units.mol, "J_mol": units.J / units.mol, "kcal_mol": units.kcal / units.mol,
        "GPa": 1.0, "MPa": 1e-3, "Pa": 1e-9, "kbar": 0.1, "bar": units.bar / units.GPa, "Mbar": 100.0,
        "eV_A3": 1.0 / units.GPa, "meV_A3": 1e-3 / units.GPa, "Ha_bohr3": units.Ha / units.Bohr**3 / units.GPa,
        "Ry_bohr3": units.Ry / units.Bohr**3 / units.GPa,
        "eV_K": 1.0, "meV_K": 1e-3, "kB": units.kB, "J_mol_K": units.J / units.mol, "J_K_mol": units.J / units.mol,
        "kJ_mol_K": units.kJ / units.mol, "cal_mol_K": 1e-3 * units.kcal / units.mol,
    }  # fmt: skip
    assert set(expected) == set(KINDS)
    for unit, value in expected.items():
        assert convert([2.0], unit, KINDS[unit])[0] == pytest.approx(2.0 * value, rel=1e-6), unit


def test_exact_constants() -> None:
    assert convert(1.0, "eV_A3", "pressure") == pytest.approx(160.2176634, rel=1e-15)
    assert convert(1.0, "kB", "entropy") == pytest.approx(8.617333262145179e-05, rel=1e-15)
    assert convert(8.31446261815324, "J_mol_K", "entropy") == pytest.approx(float(convert(1.0, "kB", "entropy")))
    assert math.isnan(convert([np.nan], "meV", "energy")[0])


@pytest.mark.parametrize(
    ("unit", "kind", "sentence"),
    [
        ("GPa", "energy", "GPa is a unit of pressure, where an energy is needed; its units are eV, meV"),
        ("furlong3", "volume", "'furlong3' is no known unit of volume; known are A3, nm3"),
        ("eV", "colour", "kind must be one of volume, temperature, energy, pressure, entropy, got 'colour'"),
    ],
)
def test_wrong_units(unit: str, kind: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_unit(unit, kind)


def test_nearest() -> None:
    assert nearest("volume_A", ["volume_A3", "T_K"]) == "; did you mean volume_A3?"
    assert nearest("q", [f"column {i}" for i in range(14)]).endswith("column 11 and 2 more")


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz"])
def test_written_tables_are_read_back_to_the_last_bit(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=20) * 10.0 ** rng.integers(-200, 200, 20)
    values[3] = np.nan
    path = tmp_path / name
    write_table(path, {"F_eV": values, "n": np.arange(20), "extrapolated": np.arange(20) % 3 == 0})
    table = read_table(path)
    np.testing.assert_array_equal(table.column("F_eV"), values)
    np.testing.assert_array_equal(table.column("n"), np.arange(20))
    np.testing.assert_array_equal(table.column("extrapolated"), np.arange(20) % 3 == 0)
    before = path.read_bytes()
    with pytest.raises(DataError, match="exists already"):
        write_table(path, {"F_eV": values})
    assert path.read_bytes() == before
    write_table(path, {"F_eV": values[:2]}, overwrite=True)
    assert len(read_table(path)) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_words_are_cells_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("# made by hand\na;name;\n1; x.xyz ;7\n\n2;;8\n3;007;9\n", encoding="utf-8")
    with pytest.warns(DataWarning, match="semicolons"):
        table = read_table(path)
    assert table.words("name") == ["x.xyz", "", "007"]
    assert table.rows(np.array([True, False, True])).words("name") == ["x.xyz", "007"]
    assert table.rows(np.array([2, 0])).words("a") == ["3", "1"]
    with pytest.raises(DataError, match="has no column 'nam'; did you mean name"):
        table.words("nam")
