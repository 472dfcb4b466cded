"""Everything that is chosen before the start: `AppConfig`.

Live controls are declared by their owners; here the section `[controls]` only holds their values at the start.
`bridge.config_file` reads all of it from a TOML file and the command line. Imports neither torch nor sockets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bridge.printable import one_line
from engine.config import Config


class Section(BaseModel):
    """A table of the configuration file: frozen, an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*")
    @classmethod
    def _printable(cls, value: Any) -> Any:
        """A host, an address, a name and a folder are one line of text; the system refuses them with a zero inside."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and one_line(text) != text:
                raise ValueError("control characters are not allowed")
        return value


class InputConfig(Section):
    """Where the picture comes from."""

    uri: str = Field("pattern:bars", description="Transport and name, as in `tidecast run --input`.")
    extra_ips: tuple[str, ...] = Field(
        (),
        description="Addresses of machines whose NDI sources mDNS does not reach.",
    )

    allow: tuple[str, ...] = Field(
        (),
        description="Inputs that senders on other machines may choose besides NDI, Spout and Syphon sources and test "
        'pictures: for example "camera:0", "file:/shows/tonight" (the folder and all in it).',
    )


class OutputConfig(Section):
    """Where the restyled picture goes."""

    uri: str = Field("ndi:Tidecast", description="Transport and name, as in `tidecast run --output`.")
    also: tuple[str, ...] = Field((), description="More outputs with the same picture.")
    fps: float = Field(0.0, ge=0.0, le=240.0, description="Frames per second; 0 follows the source.")

    @property
    def uris(self) -> tuple[str, ...]:
        """All outputs, each once; rate and latency are those of the first."""
        return tuple(dict.fromkeys((self.uri, *self.also)))


class OscConfig(Section):
    """The control port."""

    enabled: bool = Field(True, description="Listen for OSC.")
    host: str = Field("127.0.0.1", description="Address to listen at; 0.0.0.0 for the whole network.")
    port: int = Field(9000, ge=0, le=65535, description="UDP port; 0 takes a free one.")
    allow: tuple[str, ...] = Field(
        (),
        description='Other machines that are obeyed: addresses, networks ("192.168.1.0/24") or "any".',
    )
    compat: tuple[str, ...] = Field(
        (), description="Programs whose addresses are understood too: streamdiffusiontd, scope, resolume, abletonosc."
    )
    compat_port: int = Field(0, ge=0, le=65535, description="UDP port for them; 0 is the program's own.")


EXAMPLES = (
    "neon",
    "comic",
    "fire",
    "ink",
    "kaleidoscope",
    "gold",
    "hatch",
    "pixel",
    "blueprint",
    "acid",
    "halftone",
    "ocean",
)
"""Prompts that every model understands and that the embedded model draws well."""


class WebConfig(Section):
    """The control room page and OSCQuery."""

    enabled: bool = Field(True, description="Serve the control room.")
    host: str = Field("127.0.0.1", description="Address to listen at; 0.0.0.0 for the whole network.")
    port: int = Field(9001, ge=0, le=65535, description="TCP port of page and OSCQuery; 0 takes a free one.")
    token: str = Field("", description="Token of the page; empty: a new one at each start, if one is needed.")
    oscquery: bool = Field(True, description="Serve OSCQuery at that port even without the page.")
    announce: bool = Field(True, description="Announce OSCQuery by mDNS.")
    examples: tuple[str, ...] = Field(EXAMPLES, description="Prompts that the page offers, one tap each.")


class MidiConfig(Section):
    """MIDI controllers."""

    enabled: bool = Field(False, description="Listen to a MIDI controller.")
    port: str = Field("", description="Part of the controller's name; empty takes the first one.")


class EngineProcessConfig(Section):
    """How the engine process is watched."""

    kind: Literal["model", "identity"] = Field("model", description="model, or identity: the bridge without a model.")
    stall_seconds: float = Field(
        0.75,
        ge=0.1,
        le=60.0,
        description="Silence after which the input is shown instead; a slow model gets longer.",
    )
    hang_seconds: float = Field(10.0, ge=0.2, le=3600.0, description="Silence after which the engine is restarted.")
    load_seconds: float = Field(900.0, ge=1.0, le=86400.0, description="The same while a model is loading.")
    backoff_seconds: float = Field(
        0.5, ge=0.0, le=60.0, description="Wait before the first restart; doubles each time."
    )
    backoff_max_seconds: float = Field(15.0, ge=0.0, le=600.0, description="Longest wait before a restart.")
    debug: bool = Field(False, description="Obey the fault commands of `tidecast bench faults`.")


class StorageConfig(Section):
    """Where files that survive a restart are kept."""

    state_dir: str = Field("", description="Folder of snapshots, MIDI bindings and cues; empty for the user's own.")
    cues: str = Field("", description="TOML file of the cue list; empty for cues.toml in that folder.")
    record_dir: str = Field("", description="Folder of recordings; empty for the user's video folder.")

    @field_validator("state_dir", "record_dir", "cues")
    @classmethod
    def _has_a_home(cls, value: str) -> str:
        try:
            Path(value).expanduser()
        except RuntimeError:
            raise ValueError("there is no such user") from None
        return value


class AppConfig(Section):
    """Everything that is chosen before the start; frozen from then on."""

    engine: Config = Config()
    input: InputConfig = InputConfig()
    output: OutputConfig = OutputConfig()
    osc: OscConfig = OscConfig()
    web: WebConfig = WebConfig()
    midi: MidiConfig = MidiConfig()
    process: EngineProcessConfig = EngineProcessConfig()
    storage: StorageConfig = StorageConfig()
    controls: dict[str, Any] = Field(default_factory=dict, description="Live controls at the start, by name.")
