"""Engine files for the stand-in, with true records beside them."""

import hashlib

from m2f.bundle import Bundle
from m2f.config import json_from_config
from m2f.engine import FOLDER, EngineKey, EngineRecord, Flags, Sizes, model_hash, record_path
from m2f.files import write_json
from m2f.plugins.trt import system
from tests.runtime.stand_in.tensorrt import plan

SIZES = Sizes(min=(1, 1, 1), opt=(1, 64, 96), max=(4, 128, 192))


def write_engine(path, *, sizes=SIZES, content=None, bundle=None, **changes):
    """Writes an engine of a bundle into it; ``changes`` are fields of its key."""
    bundle = bundle or Bundle.open(path)
    key = EngineKey(
        **{
            "target": "tensorrt",
            "tensorrt": "11.4.0",
            "system": system(),
            "gpu": "Test RTX 1",
            "compute": (89,),
            "precision": "fp32",
            "model": model_hash(bundle),
            "plugins": None,
            "sizes": sizes,
            "flags": Flags(),
            **changes,
        }
    )
    if content is None:
        content = plan(bundle.model_path, (sizes.min, sizes.opt, sizes.max))
    engine = bundle.path / FOLDER / f"{key.name}.engine"
    engine.parent.mkdir(exist_ok=True)
    engine.write_bytes(content)
    record = EngineRecord(
        key=key,
        bundle="toy",
        created="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    write_json(record_path(engine), json_from_config(record))
    return engine
