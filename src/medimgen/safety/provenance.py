"""Where does this picture come from? What PNG text, DICOM and C2PA say, and how little it takes to lose it.

>>> of("image.png").synthetic                 # True, False, or None: the file does not say
>>> sign("image.png", "signed.png")           # C2PA, with a certificate made for this one file; extra "safety"

`generate.save_png` writes text chunks, `dicom.write` the attribute SyntheticData (0008,001C; PS3.3 C.12.1, 2024). C2PA
(c2pa.org, specification 2.2) binds a signed statement to the bytes: it shows that somebody said so and that nobody
changed the file since. A certificate made here proves nothing about who that was: readers call it untrusted. Saving
again, cutting, a screenshot or a tool that drops metadata removes all three. No mark never means a real film.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from medimgen.errors import CourseError

MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@dataclass(frozen=True)
class Provenance:
    """`synthetic`: True, False or None (not said). `said`: what each way says; `by`: which ways say anything."""

    synthetic: bool | None
    said: dict[str, str] = field(default_factory=dict)
    by: tuple[str, ...] = ()


def of(path: str | Path) -> Provenance:
    """What a PNG, JPEG or DICOM file says of its own origin. Raises CourseError if it cannot be opened."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CourseError(f"{path}: {error.strerror}", next="check the file's name") from error
    found = [_dicom(path)] if data[128:132] == b"DICM" else [_png(path), _c2pa(path, data)]
    found = [(name, mark, said) for name, mark, said in found if said]
    marks = [mark for _, mark, _ in found if mark is not None]
    said = {f"{name}: {key}": value for name, _, told in found for key, value in told.items()}
    return Provenance(any(marks) if marks else None, said, tuple(name for name, *_ in found))


def _png(path: Path) -> tuple[str, bool | None, dict[str, str]]:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            text = {key: value for key, value in picture.info.items() if isinstance(value, str)}
    except (OSError, ValueError, SyntaxError) as error:
        raise CourseError(f"{path.name} is no picture that can be opened", next="give a PNG, JPEG or DICOM") from error
    return "PNG text", {"true": True, "false": False}.get(text.get("Synthetic", "")), text


def _dicom(path: Path) -> tuple[str, bool | None, dict[str, str]]:
    from pydicom import dcmread

    ds = dcmread(path, stop_before_pixels=True)
    names = ("SyntheticData", "DerivationDescription", "ConversionType", "ImageType")
    said = {name: str(ds[name].value) for name in names if name in ds}
    return "DICOM", {"YES": True, "NO": False}.get(said.get("SyntheticData", "")), said


def _c2pa(path: Path, data: bytes) -> tuple[str, bool | None, dict[str, str]]:
    if b"c2pa" not in data:
        return "C2PA", None, {}
    try:
        c2pa = _library()
    except CourseError as error:
        return "C2PA", None, {"not read": error.what}
    try:
        with c2pa.Reader(str(path)) as reader:
            manifest, state = reader.get_active_manifest(), reader.get_validation_state()
            faults = json.loads(reader.json()).get("validation_status", [])
    except c2pa.C2paError as error:
        return "C2PA", None, {"broken": str(error)}
    actions = [a for part in manifest["assertions"] for a in part["data"].get("actions", ())]
    made = any(action.get("digitalSourceType") == MADE for action in actions)
    said = {"state": str(state), "signed by": manifest["signature_info"].get("common_name", "unknown")}
    said |= {"faults": ", ".join(fault["code"] for fault in faults)} if faults else {}
    for action in actions:
        said |= {key: str(value) for key, value in action.get("parameters", {}).items()}
    return "C2PA", made or None, said


def _library():
    try:
        import c2pa
    except ImportError as error:
        raise CourseError("c2pa-python is not installed", next="pip install -e .[safety] -c constraints.txt") from error
    return c2pa


def sign(path: str | Path, target: str | Path) -> Path:
    """Copy a synthetic PNG to `target` with a signed C2PA statement of how it was made; the pixels stay.

    Key and certificates are made here, for 30 days, and thrown away: a demonstration, not an identity. Raises
    CourseError without c2pa-python, for a file that is not marked synthetic, or a target that exists.
    """
    path, target, c2pa = Path(path), Path(target), _library()
    known = of(path)
    if not known.synthetic or target.exists():
        why = f"{target} exists already" if known.synthetic else f"{path.name} is not marked synthetic"
        raise CourseError(why, next="sign only what generate.save_png wrote, into a new file")
    told = {key.split(": ")[1]: value for key, value in known.said.items() if key.startswith("PNG text: ")}
    action = {"action": "c2pa.created", "digitalSourceType": MADE}
    action["parameters"] = {key: told[key] for key in ("Prompt", "Seed", "Weights-SHA256") if key in told}
    statement = {
        "claim_generator_info": [{"name": "medimgen"}],
        "title": target.name,
        "format": "image/png",
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    chain, key = _certificates()
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", chain, key, None))
    plain = c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})
    with c2pa.Builder(statement, context=plain) as builder:
        builder.sign_file(str(path), str(target), signer)
    return target


def _certificates() -> tuple[bytes, bytes]:
    """(certificates, leaf first; private key of the leaf), PEM: C2PA wants a leaf that did not sign itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now, names = datetime.now(UTC), []
    for name in ("root made at run time", "medimgen, made at run time"):
        parts = (x509.NameAttribute(NameOID.ORGANIZATION_NAME, "nobody"), x509.NameAttribute(NameOID.COMMON_NAME, name))
        names.append(x509.Name(parts))
    chain = b""
    for key, name, is_root in ((leaf, names[1], False), (root, names[0], True)):
        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
        usage |= {"digital_signature": not is_root, "key_cert_sign": is_root, "crl_sign": is_root}
        made = x509.CertificateBuilder(names[0], name, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=30))
        for extension, critical in (
            (x509.BasicConstraints(is_root, None), True),
            (x509.KeyUsage(**usage, encipher_only=False, decipher_only=False), True),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False),
            *(() if is_root else ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False),)),
        ):
            made = made.add_extension(extension, critical)
        chain += made.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return chain, leaf.private_bytes(serialization.Encoding.PEM, *plain)
