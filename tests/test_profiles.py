"""Profiles of cameras: noise between two ISOs, lights, files, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from degradations.camera.profiles import NoiseLevel, profile_names, read_profile, write_profile


def test_shipped_profiles_know_the_isos_they_are_for() -> None:
    assert profile_names() == ["generic-compact", "generic-phone"]
    phone = read_profile("generic-phone")
    assert {800.0, 1600.0, 3200.0} <= {level.iso for level in phone.levels}
    for profile in map(read_profile, profile_names()):
        noise = [level.beta1[0] * 100 + level.beta2[0] for level in profile.levels]
        assert noise == sorted(noise)


def test_generic_phone_follows_the_rules_of_its_source() -> None:
    for level in read_profile("generic-phone").levels:
        assert level.beta1 == pytest.approx([level.iso / 250] * 4)
        assert level.beta2 == pytest.approx([round((level.iso / 150) ** 2 + 0.56)] * 4)


def test_noise_between_two_isos_is_that_of_an_amplifier() -> None:
    """Read noise before an amplifier of gain g and after it: (g a)^2 + b^2; photon noise: g; rows: g too."""

    def level(iso: float) -> NoiseLevel:
        gain = iso / 100
        shot, dark = 0.3 * gain, (1.7 * gain) ** 2 + 0.9**2
        return NoiseLevel(iso=iso, beta1=(shot, shot, shot, shot), beta2=(dark, dark, dark, dark), row=0.2 * gain)

    phone = read_profile("generic-phone")
    profile = phone.model_copy(update={"levels": (level(100), level(400), level(3200))})
    for iso in (100, 230, 400, 1600, 3200):
        found, expected = profile.at_iso(iso), level(iso)
        np.testing.assert_allclose(found.beta1, expected.beta1, rtol=1e-12)
        np.testing.assert_allclose(found.beta2, expected.beta2, rtol=1e-12)
        assert found.row == pytest.approx(expected.row)
    with pytest.raises(ValueError, match=r"generic-phone: knows the noise from ISO 100 to 3200, not at 3201"):
        profile.at_iso(3201)


def test_light_goes_from_the_first_to_the_last() -> None:
    profile = read_profile("generic-phone")
    first, last = profile.lights[0], profile.lights[-1]
    assert profile.light_at(0) == first
    assert profile.light_at(1) == last
    between = profile.light_at(0.3)  # half way from the second to the third of six
    assert between.red == pytest.approx((profile.lights[1].red + profile.lights[2].red) / 2)
    with pytest.raises(ValueError, match=r"place of a light from 0 to 1, got 1.1"):
        profile.light_at(1.1)


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    for name in profile_names():
        write_profile(tmp_path / "mine.json", read_profile(name))
        assert read_profile(tmp_path / "mine.json") == read_profile(name)


def test_a_profile_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full after half of the text leaves the profile that was there, and nothing else."""
    known, other = (read_profile(name) for name in profile_names()[:2])
    write_profile(tmp_path / "mine.json", known)

    def half(self: Path, text: str, encoding: str, errors: str) -> None:
        self.write_bytes(text.encode(encoding)[: len(text) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="no space"):
        write_profile(tmp_path / "mine.json", other)
    assert read_profile(tmp_path / "mine.json") == known
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]


@pytest.mark.parametrize("kind", ["numpy", "folder", "json"])
def test_tables_of_the_public_code_lose_their_black_level(kind: str, tmp_path: Path) -> None:
    """Rows of ISO, site, beta1, beta2, where the variance counts the signal with the black level, 64."""
    table = [[iso, site, iso / 100 + site, -60.0 * (iso / 100 + site)] for iso in (50, 200) for site in range(4)]
    path = tmp_path / "sensor"
    path.mkdir()
    if kind == "json":
        path = path / "table.json"
        path.write_text(json.dumps({"name": "sensor", "table": table}), encoding="utf-8")
    else:
        np.save(path / "model_params.npy", np.array(table))
        path = path if kind == "folder" else path / "model_params.npy"
    profile = read_profile(path)
    assert (profile.name, profile.cfa, profile.black, profile.white) == ("sensor", "GRBG", 64, 1023)
    for iso, site, beta1, beta2 in table:
        level = profile.at_iso(iso)
        for signal in (0.0, 500.0):
            theirs = beta1 * (signal + 64) + beta2
            assert level.beta1[int(site)] * signal + level.beta2[int(site)] == pytest.approx(theirs)


def changed(**changes: Any) -> str:
    return json.dumps(read_profile("generic-phone").model_dump(mode="json") | changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not JSON", r"mine.json: expected a camera profile as JSON"),
        ("[1]", r"mine.json: expected a JSON object"),
        (changed(white=10), r"white must be above black, got 10 and 64"),
        (changed(cfa="RGBG"), r"cfa: Input should be 'RGGB'"),
        (changed(levels=[]), r"levels: .* at least 1 item"),
        (changed(levels=[{"iso": 100, "beta1": [1] * 4, "beta2": [-1] * 4}]), r"levels.0: beta2 must be 0 or more"),
        (changed(levels=[{"iso": 100, "beta1": [1] * 4, "beta2": [1] * 4}] * 2), r"ascending order of ISO"),
        (changed(lights=[{"red": 2, "blue": 2, "matrix": [[1, 1, 0], [0, 1, 0], [0, 0, 1]]}]), r"must sum to 1"),
        (changed(lights=[{"red": 2, "blue": 2, "matrix": [[1, 0, 0], [1, 0, 0], [0, 0, 1]]}]), r"has no inverse"),
        (json.dumps({"table": [[100, 0, 1, 1]]}), r"expected the sites 0, 1, 2, 3 at ISO 100, got \[0\]"),
        (json.dumps({"table": [[100, 0]]}), r"rows of four numbers"),
    ],
)
def test_profiles_say_what_is_wrong_with_them(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_profile(tmp_path / "mine.json")


@pytest.mark.parametrize("content", [
    '{"black": ' + "9" * 5000 + "}", "[" * 100_000, '{"table": [[' + "9" * 400 + ', 0, 1, 1]]}', '{"name": "\ud800"}'
], ids=["digits", "nested", "table", "letters"])
def test_a_profile_of_any_content_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"^[^\n]*x\.json: [^\n]*$"):
        read_profile(tmp_path / "x.json")


def test_unknown_profiles_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no camera profile 'generic-fone'; did you mean 'generic-phone'\?"):
        read_profile("generic-fone")
    with pytest.raises(ValueError, match=r"absent.json: there is no such profile file"):
        read_profile(tmp_path / "absent.json")
    (tmp_path / "model_params.npy").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=r"model_params.npy: expected a numpy array of plain numbers"):
        read_profile(tmp_path)
