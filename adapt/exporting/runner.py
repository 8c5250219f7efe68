"""Restores face photos with model.onnx: python run_model.py PHOTOS OUT [--fidelity W] [--faces auto|whole|aligned]

PHOTOS is a folder, with the folders in it, or one file; OUT a folder for PNG files of the same names. Needs numpy,
Pillow and onnxruntime. Lies beside model.onnx and bundle.json. Aligned faces of another size than the model was made
for are resized to it, and named. A bundle that was exported with --whole takes whole photographs too: each face is
found, restored and put back, and all else stays; what is an aligned face, each photo's look says, or --faces. Colour
profiles are converted to sRGB; 16-bit colour is read with 8 bits. Grey photos stay grey. Images that are there are left
alone; those of another model or another W are not mixed in: OUT/restored.json tells which they are of, OUT/log.jsonl
what was written. What is not restored is named with the reason: camera RAW and HEIC, which Pillow does not read, photos
that are damaged, files of other kinds, and where OUT holds something else in an image's place, which stays. Nothing is
sent anywhere.
W is in [0, 1], for models that take it: 0 quality, 1 fidelity.
Exit code 2: wrong use; 3: some photos could not be read or restored.
"""

import argparse
import errno
import hashlib
import io
import json
import os
import runpy
import struct
import sys
import unicodedata
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported: nothing is to be sent anywhere
import onnxruntime
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "AVIF")
SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".avif", ".mpo"}
RAW = (
    "3fr arw cr2 cr3 crw dcr dng erf fff iiq k25 kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
)
UNREAD = {f".{kind}" for kind in (*RAW.split(), "heic", "heif", "hif")}  # photos too, but not for Pillow
GREY = ("1", "L", "LA", "La")
ORIENTATION = 0x0112
TOLD_BY_TIFF = {270, 271, 272, 305, 306, 315, 33432}  # description, camera, software, date, artist, copyright
SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
# What Pillow raises on damaged files: its parsers index, unpack and divide what the file says.
DAMAGED = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError,
    RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
NAME_FAULTS = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
WHOLE = (  # of a bundle that takes whole photographs
    "detector-1.onnx", "detector-2.onnx", "detector-3.onnx", "landmarks.onnx", "face_detector.py",
    "whole_photographs.py",
)  # fmt: skip
MARK = {"made by": "adapt", "kind": "restored photos"}  # a folder without it is somebody else's


def refuse(why: str) -> NoReturn:
    """End before any work, as wrong use."""
    sys.stderr.write(f"{why}\n")
    sys.exit(2)


def sha256(data: bytes) -> str:
    """A digest as bundle.json and the log have it."""
    return hashlib.sha256(data).hexdigest()


def composed(name: str) -> str:
    """A name in composed Unicode: the same, however the file system spells its accents."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))


def find(photos: Path) -> dict[Path, str]:
    """The photos of a folder and the folders in it, or the one file, each with its path in OUT without suffix."""
    if photos.is_file():
        return {photos: composed(photos.stem)}
    if not photos.is_dir():
        refuse(f"{photos}: no such folder or file")

    def unlisted(error: OSError) -> None:
        refuse(f"{error.filename}: cannot be listed ({error.strerror})")

    found: list[Path] = []
    seen: set[str] = set()
    for here, folders, files in os.walk(photos, onerror=unlisted, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # reached a second time, by a link
            folders.clear()
            continue
        seen.add(real)
        shown = [name for name in folders if not name.startswith(".")]
        folders[:] = sorted(shown, key=lambda name: (Path(here, name).is_symlink(), name))  # links last
        found += [Path(here, name) for name in files if not name.startswith(".")]
    files = sorted(path for path in found if path.suffix.lower() in SUFFIXES | UNREAD)
    for path in sorted({*found} - {*files}):
        sys.stderr.write(f"{path}: left out, no photo by its name\n")
    if not files:
        refuse(f"{photos}: no photos there")
    return name_apart({path: path.relative_to(photos).as_posix() for path in files})


def name_apart(files: dict[Path, str]) -> dict[Path, str]:
    """A name for each file: a; where a.jpg and a.png share it a_jpg and a_png; where those are shared, a digest too."""
    forms: dict[Path, tuple[str, ...]] = {}
    for path, name in files.items():
        stem, suffix = name.rsplit(".", 1)
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
        forms[path] = (composed(stem), composed(f"{stem}_{suffix}"), composed(f"{stem}_{suffix}_{digest}"))
    level = dict.fromkeys(files, 0)
    while True:
        names = {path: forms[path][level[path]] for path in files}
        shared = Counter(composed(name.casefold()) for name in names.values())
        longer = [path for path in files if level[path] < 2 and shared[composed(names[path].casefold())] > 1]
        if not longer:
            return names
        for path in longer:
            level[path] += 1


class NoImage(Exception):
    """The model gave values that are not finite."""


def read(path: Path) -> tuple[list[Image.Image], bool, Image.Image]:
    """The three bands of an image, sRGB from 0 to 255, the way up it was taken; whether the file is grey; and the image
    as the file has it, upright."""
    if path.suffix.lower() in UNREAD:
        raise ValueError(f"{path.suffix} is camera RAW or HEIC, which Pillow does not read; convert it to PNG first")
    if not path.is_file():
        raise ValueError("no such file" if not path.exists() else "not a regular file")
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    with Image.open(path, formats=formats) as checked:
        pale = "LA;16" in str(checked.tile)  # grey with alpha, which Pillow calls RGBA where it has 16 bits
        checked.verify()  # the checksums of PNG, which are not looked at below
    with Image.open(path, formats=formats) as opened:
        turned = opened.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        image = own = ImageOps.exif_transpose(opened)
    mode, profile, tags = opened.mode, opened.info.get("icc_profile"), getattr(opened, "tag_v2", {})
    for tag in TOLD_BY_TIFF & {*tags}:  # a copy has none of them
        if isinstance(tags[tag], str):
            own.getexif()[tag] = tags[tag]
    if turned and len(own.info.get("dpi", ())) == 2:
        own.info["dpi"] = own.info["dpi"][::-1]
    if mode.startswith("I;16") or (mode == "I" and opened.format == "PNG"):  # convert() would clip it to white
        peak = 2 ** max(np.atleast_1d(tags.get(258, 16))) - 1
        values = np.asarray(image, dtype=np.float32) * (255 / peak)
        if tags.get(262) == 0:  # white is zero
            values = 255 - values
        levels = np.arange(256)  # what the profile makes of each
        ramp = np.asarray(to_srgb(Image.fromarray(levels.astype(np.uint8)[None]), profile))[0]
        return [Image.fromarray(np.interp(values, levels, ramp[:, i]).astype(np.float32)) for i in range(3)], True, own
    if mode.startswith(("I", "F")):
        raise ValueError("samples of 32 bits or floating-point, which have no known white; save it with 8 or 16 bits")
    if tags.get(284) == 2 and max(np.atleast_1d(tags.get(258, 1))) > 8:
        raise ValueError("16-bit colours in separate planes, which Pillow does not read; convert it to PNG first")
    grey = mode in GREY or pale
    if mode not in ("CMYK", "LAB") and image.mode != (wanted := "L" if grey else "RGB"):  # convert() always copies
        image = image.convert(wanted)
    return list(to_srgb(image, profile).split()), grey, own


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An image of mode L, RGB, CMYK or LAB in sRGB, by its profile if that can be used; left alone if it is sRGB."""
    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else None
    except (OSError, ImageCms.PyCMSError):
        source = None
    space = SPACES.get(source.profile.xcolor_space.strip()) if source else None
    if image.mode == "L" and space == "RGB":
        image = image.convert("RGB")
    if space != image.mode:
        return image.convert("RGB")
    try:
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB")
        if image.mode in ("RGB", "L"):
            cube = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), axis=-1)
            probe = Image.fromarray(cube.reshape(len(cube), -1, 3)).convert(image.mode)
            before, after = np.asarray(probe.convert("RGB")), np.asarray(ImageCms.applyTransform(probe, transform))
            if np.abs(after.astype(int) - before).max() <= 1:
                return image.convert("RGB")
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None  # None only where it works in place
        return converted
    except ImageCms.PyCMSError:
        return image.convert("RGB")


def fit(bands: list[Image.Image], side: int) -> np.ndarray:
    """An image at the size that the model was made for, (1, 3, side, side) float32 in [0, 1]."""
    width, height = bands[0].size
    if abs(height - width) > 0.01 * max(height, width):
        raise ValueError(f"not an aligned face: expected a square image, got {width} x {height}; crop the face first")
    planes = [band.convert("F").resize((side, side), Image.Resampling.BICUBIC) for band in bands]
    return (np.stack([np.asarray(plane) for plane in planes])[None] / 255).clip(0, 1)


def without_colour(pixels: np.ndarray) -> bool:
    """Whether (3, H, W) in [0, 1] has none, whatever its file says."""
    return bool((np.ptp(pixels, axis=0) > 4 / 255).mean() <= 1e-3)


def encoded(pixels: np.ndarray) -> bytes:
    """A PNG file of (3, H, W) in [0, 1]."""
    stream = io.BytesIO()
    Image.fromarray((pixels * 255).round().astype(np.uint8).transpose(1, 2, 0)).save(stream, format="PNG")
    return stream.getvalue()


def claim(out: Path, bundle: dict[str, Any], fidelity: float | None, faces: str) -> dict[str, np.ndarray]:
    """Take a folder that is new, or of an earlier run that made the same; what the model takes beside the photo."""
    about = bundle["fidelity"]
    if fidelity is not None and not (about and 0 <= fidelity <= 1):
        refuse(f"--fidelity {fidelity}: " + ("expected a number in [0, 1]" if about else "this model takes none"))
    wanted = about and (about["default"] if fidelity is None else fidelity)
    digest, size = bundle["sha256"]["model.onnx"], bundle["size"]
    made = {"model": digest, "size": size, **({"fidelity": wanted} if about else {})}
    made |= {} if faces == "aligned" else {"faces": faces}
    path = out / "restored.json"
    if out.exists() and not out.is_dir():
        refuse(f"{out}: is a file; choose a folder")
    others = [each for each in out.iterdir() if not each.name.startswith(".")] if out.exists() else []
    if not path.exists():  # asked after the list: what another run has made since is no other file
        if others:
            refuse(f"{out}: expected a new folder or one of an earlier run; it holds other files")
        out.mkdir(parents=True, exist_ok=True)
        put(path, (json.dumps({**MARK, **made}, indent=2) + "\n").encode())
    found = parsed(path.read_bytes(), f"{path}", "choose another folder, or remove this one")
    if not MARK.items() <= found.items():
        refuse(f"{out}: expected a new folder or one of an earlier run; its restored.json is of something else")
    if found.get("model") != made["model"]:
        refuse(f"{out}: holds images of another model; choose another folder")
    if (known := found.get("size", size)) != size:
        refuse(f"{out}: holds images of {known} px, not {size}; choose another folder")
    if (known := found.get("fidelity")) != wanted:
        refuse(f"{out}: holds images of fidelity {known}, not {wanted}; choose another folder")
    if (known := found.get("faces", "aligned")) != faces:
        refuse(f"{out}: holds images of --faces {known}, not {faces}; choose another folder")
    chosen = [key for key in ("largest", "max_faces", "boxes", "frames") if found.get(key)]
    if chosen or found.get("strength", 1) != 1:  # by adapt restore, which has these
        refuse(f"{out}: holds images made with --{(*chosen, 'strength')[0].replace('_', '-')}; choose another folder")
    return {about["name"]: np.array([wanted], np.float32)} if about else {}


def parsed(data: bytes, place: str, remedy: str) -> dict[str, Any]:
    """The JSON object that a file or a line of it holds."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        refuse(f"{place}: is damaged ({error if data.strip() else 'empty'}); {remedy}")
    return value if isinstance(value, dict) else refuse(f"{place}: is damaged (expected an object); {remedy}")


def written(out: Path) -> dict[str, set[str]]:
    """The digests of the images that were made in a folder, by name."""
    digests: dict[str, set[str]] = {}
    for name, key in (("log.jsonl", "restored_sha256"), (".written.jsonl", "sha256")):
        lines = (out / name).read_bytes().split(b"\n")[:-1] if (out / name).exists() else []
        for number, line in enumerate(lines, start=1):
            told = parsed(line, f"{out / name}, line {number}", "remove that line") if line.strip() else {}
            digests.setdefault(str(told.get("file")), set()).add(str(told.get(key)))
    return digests


def put(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".adapt-{os.getpid()}-{os.urandom(4).hex()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def add_line(log: Path, line: dict[str, str]) -> None:
    """Add to the log what is about to be written, after what is whole of it."""
    with log.open("a+b") as stream:
        stream.seek(0)
        whole = stream.read()
        stream.truncate(whole.rfind(b"\n") + 1)
        stream.write(json.dumps(line, sort_keys=True).encode() + b"\n")


def open_model(bundle: dict[str, Any], name: str) -> onnxruntime.InferenceSession:
    """A network, on CUDA where onnxruntime has it; no other file than the one that bundle.json names."""
    cuda = [("CUDAExecutionProvider", {"use_tf32": "0"})]
    available = cuda if cuda[0][0] in onnxruntime.get_available_providers() else []
    return onnxruntime.InferenceSession(named(bundle, name), providers=[*available, "CPUExecutionProvider"])


def named(bundle: dict[str, Any], name: str) -> bytes:
    """The content of a file of the bundle, if it is the one that bundle.json names."""
    path = Path(__file__).with_name(name)
    content = path.read_bytes() if path.is_file() else b""
    if sha256(content) != bundle["sha256"].get(name):
        refuse(f"{path}: is not the file that bundle.json names; export it again")
    return content


class Maker:
    """Makes a restored PNG file of a photo.

    Attributes:
        model: (3, side, side) in [0, 1] to the same.
        side: of the model's faces.
        whole: the module for whole photographs with what finds faces, where photos may be whole.
        always: no photo is an aligned face.
    """

    def __init__(self, bundle: dict[str, Any], chosen: dict[str, np.ndarray], faces: str) -> None:
        session = open_model(bundle, "model.onnx")
        photo = session.get_inputs()[0].name
        self.side = bundle["size"]
        self.always = faces == "whole"
        self.whole: tuple[Any, Any] | None = None

        def model(pixels: np.ndarray) -> np.ndarray:
            restored = np.asarray(session.run(None, {photo: pixels[None], **chosen})[0])[0]
            if not np.isfinite(restored).all():
                raise NoImage
            return restored.clip(0, 1)

        self.model = model
        if faces != "aligned":
            for name in WHOLE:
                named(bundle, name)
            detecting, tools = (
                SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name(name)))) for name in WHOLE[-2:]
            )

            def network(name: str) -> Callable[[np.ndarray], Any]:
                opened = open_model(bundle, name)
                return lambda pixels: opened.run(None, {opened.get_inputs()[0].name: pixels})

            *detector, landmarks = (network(name) for name in WHOLE[:-2])
            self.whole = tools, tools.Finder(detecting.Detector(*detector), landmarks)

    def __call__(self, path: Path) -> tuple[bytes, str]:
        """A PNG file of a photo, and what is to be said of it.

        Raises one of DAMAGED: cannot be read, or not an aligned face, where it must be one. NoImage: as it says."""
        bands, grey, own = read(path)
        width, height = bands[0].size
        if self.whole is not None and (self.always or (width, height) != (self.side, self.side)):
            pixels = np.stack([np.asarray(band, dtype=np.float32) for band in bands]) / 255
            faces = self.whole[1].find(pixels)
            square = abs(height - width) <= 0.01 * max(height, width)
            if self.always or not square or not self.whole[0].is_aligned(faces, width):
                png = self.whole[0].restored(
                    pixels, faces, self.side, self.model, own, grey=grey, colourless=grey or without_colour(pixels)
                )
                return png, f"{len(faces) or 'no'} face{'' if len(faces) == 1 else 's'} found"
        del own  # memory
        return self.aligned(bands, grey)

    def aligned(self, bands: list[Image.Image], grey: bool) -> tuple[bytes, str]:
        """An aligned face, restored."""
        pixels = fit(bands, self.side)[0]
        if not grey and without_colour(pixels):
            grey, pixels = True, np.repeat(pixels.mean(axis=0, keepdims=True), 3, axis=0)
        restored = self.model(pixels)
        if grey:  # the network may tint: the mean of its channels, in all three
            restored = np.repeat(restored.mean(axis=0, keepdims=True), 3, axis=0)
        width, height = bands[0].size
        same = (width, height) == (self.side, self.side)
        return encoded(restored), "" if same else f"resized from {width} x {height} to {self.side} x {self.side}"


def main(photos: Path, out: Path, fidelity: float | None, faces: str | None) -> int:
    """Restore every photo; the number of photos that could not be read."""
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 1 << 28  # bytes of texts and profiles, not pixels
    whole = out.resolve()
    if photos.is_dir() and any(each.exists() and each.samefile(photos) for each in (whole, *whole.parents)):
        refuse(f"{out}: lies inside the photos; choose an output folder elsewhere")
    files = find(photos)
    about = Path(__file__).with_name("bundle.json")
    bundle = parsed(about.read_bytes(), f"{about}", "export the bundle again")
    able = WHOLE[0] in bundle["sha256"]
    if faces not in (None, "aligned") and not able:
        refuse(f"--faces {faces}: this bundle takes aligned faces alone; export it with --whole")
    mode = faces or ("auto" if able else "aligned")
    maker = Maker(bundle, claim(out, bundle, fidelity, mode), mode)
    known, count = written(out), Counter[str]()
    for path, name in files.items():
        target = out / f"{name}.png"
        if os.path.lexists(target):
            ours = target.is_file() and sha256(target.read_bytes()) in known.get(f"{name}.png", ())
            what = "exists already, left alone" if ours else "is not what was made here, and is kept; move it elsewhere"
            sys.stderr.write(f"{target}: {what}\n")
            count["skipped" if ours else "failed"] += 1
            continue
        try:
            png, said = maker(path)
        except NoImage:
            sys.stderr.write(f"{path}: the model gave values that are not finite\n")
            count["failed"] += 1
            continue
        except DAMAGED as error:
            sys.stderr.write(f"{path}: cannot be read ({error})\n")
            count["failed"] += 1
            continue
        if said:
            sys.stderr.write(f"{path}: {said}\n")
            count["resized"] += said.startswith("resized")
        line = {"id": name, "file": f"{name}.png", "photo_sha256": sha256(path.read_bytes())}
        try:
            add_line(out / "log.jsonl", {**line, "restored_sha256": sha256(png)})
            put(target, png)
        except OSError as error:
            if error.errno not in NAME_FAULTS:
                raise
            sys.stderr.write(f"{target}: cannot be written ({error.strerror})\n")
            count["failed"] += 1
            continue
        sys.stderr.write(f"{target}\n")
        count["done"] += 1
    counted = f"{count['done']} restored, {count['skipped']} already there, {count['failed']} failed"
    sys.stderr.write(f"{counted}; in {out}\n")
    if count["resized"]:
        sys.stderr.write(f"{count['resized']} of them resized to the model's {maker.side} x {maker.side}\n")
    return count["failed"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for argument, kind in (("photos", Path), ("out", Path), ("--fidelity", float)):
        parser.add_argument(argument, type=kind)
    parser.add_argument("--faces", choices=("auto", "whole", "aligned"))
    given = parser.parse_args()
    sys.exit(3 if main(given.photos, given.out, given.fidelity, given.faces) else 0)
