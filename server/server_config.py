"""The configuration of serve.py. It needs none of the packages that a server needs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from model import hparams
from model.command import UserError
from model.hparams import option


@dataclasses.dataclass(frozen=True)
class ServerConfig:
    """What is served and how much of it; every field is a flag of serve.py."""

    models: str = option(
        "", "NAME:FOLDER,... with folders of SavedModels: FOLDER/saved_model.pb, or FOLDER/N/saved_model.pb with version N"
    )
    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0: every one of this machine")
    port: int = option(8501, "port to listen on, TensorFlow Serving's; 0: any that is free, which the log names")
    max_rows: int = option(64, "rows that one request may have")
    max_characters: int = option(10_000, "characters that a text may have")
    max_body_bytes: int = option(1 << 20, "size of a request's body")
    max_batch_rows: int = option(64, "rows that are computed together")
    max_waiting_rows: int = option(512, "rows that may wait; beyond, requests are refused with 429")
    batch_window_ms: float = option(2.0, "milliseconds that a request waits for others to be computed with")
    max_connections: int = option(1000, "clients at a time; beyond, they are refused with 503")
    timeout_s: float = option(10.0, "seconds after which a request is refused with 503")

    @classmethod
    def create(cls, values: Mapping[str, Any]) -> "ServerConfig":
        """Raises UserError on anything unknown, mistyped, missing or impossible."""
        config = cls(**hparams.check(cls, values))
        for name in ("max_rows", "max_characters", "max_body_bytes", "max_batch_rows", "max_waiting_rows", "max_connections", "timeout_s"):
            if getattr(config, name) <= 0:
                raise UserError(f"{name} must be greater than 0, got {getattr(config, name)} (--{name})")
        if not 0 <= config.port < 65536 or config.batch_window_ms < 0:
            raise UserError(f"port must be 0 to 65535 and batch_window_ms not negative, got {config.port} and {config.batch_window_ms}")
        for name in ("max_waiting_rows", "max_batch_rows"):
            if config.max_rows > getattr(config, name):
                raise UserError(f"max_rows {config.max_rows} must be at most {name} {getattr(config, name)} (--{name})")
        parse_models(config.models)
        return config


def parse_models(text: str) -> dict[str, str]:
    """ "nsmc:served/nsmc,electra:served/electra" -> name -> path; UserError for anything else."""
    models: dict[str, str] = {}
    for entry in filter(None, text.split(",")):
        name, separator, path = entry.partition(":")
        if not (separator and path and name.replace("-", "").replace("_", "").isalnum()) or name in models:
            raise UserError(f"--models must be NAME:FOLDER,NAME:FOLDER with different names of letters, digits, - and _, got {entry!r}")
        models[name] = path
    if not models:
        raise UserError("--models is required: NAME:FOLDER,... with folders of SavedModels, as export_checkpoint.py writes them")
    return models
