"""The custom parameters that do not come from the table of controls: beat, presets, connection, engine process, about.

Each function returns the parameters of one page, or of one section, in the order of the page.
"""

from __future__ import annotations

from td_components.definition.spec import Parameter, Style


def beat() -> list[Parameter]:
    """TouchDesigner's own beat, on the page Beat."""
    return [
        Parameter(
            "Followtempo",
            "Follow TouchDesigner's Tempo",
            "Beat",
            Style.TOGGLE,
            False,
            help="Let the beat of Tidecast follow TouchDesigner's own tempo. Source becomes osc; while another one is "
            "chosen, nothing is sent.",
        ),
        Parameter(
            "Beatchop",
            "Beat CHOP",
            "Beat",
            Style.STR,
            "beat",
            help="Path of the Beat CHOP that is followed, seen from inside this component. The one inside keeps to the "
            "project's tempo; one of yours may be reset on your bar. It needs the outputs Count+Ramp and BPM, and the "
            "period 1.",
        ),
    ]


def presets() -> list[Parameter]:
    """Presets, on the page Stream."""
    return [
        Parameter(
            "Preset",
            "Preset",
            "Stream",
            Style.INT,
            1,
            low=1,
            high=64,
            section=True,
            help="Number of a preset. Presets keep the parameters of the pages Stream and Prompts in this "
            "component's storage, and thus in the .toe file.",
        ),
        Parameter(
            "Storepreset",
            "Store Preset",
            "Stream",
            Style.PULSE,
            0,
            help="Store the parameters of the pages Stream and Prompts under this number.",
        ),
        Parameter(
            "Recallpreset",
            "Recall Preset",
            "Stream",
            Style.PULSE,
            0,
            help="Set the parameters to the values stored under this number.",
        ),
    ]


def connection() -> list[Parameter]:
    """The page Connection: how the component reaches Tidecast."""
    page = "Connection"
    return [
        Parameter(
            "Active",
            "Active",
            page,
            Style.TOGGLE,
            True,
            help="Communicate with Tidecast. A Tidecast that is already running, here or on another machine, is used "
            "as soon as it answers at the address below.",
        ),
        Parameter(
            "Address",
            "Address",
            page,
            Style.STR,
            "127.0.0.1",
            help="Machine on which Tidecast runs. It must listen there and obey this machine: tidecast run "
            "--osc-host 0.0.0.0 --osc-allow, then the address of this machine.",
        ),
        Parameter(
            "Port", "OSC Port", page, Style.INT, 9000, low=1, high=65535, help="UDP port at which Tidecast listens."
        ),
        Parameter(
            "Listenport",
            "Listen Port",
            page,
            Style.INT,
            9010,
            low=1,
            high=65535,
            help="UDP port at which this component receives the answers. Two components need two ports.",
        ),
        Parameter(
            "Onconnect",
            "On Connect",
            page,
            Style.MENU,
            "send",
            menu=(("send", "Send my values"), ("fetch", "Take its values")),
            help="Which side's values to use when Tidecast becomes ready.",
        ),
        Parameter(
            "Transport",
            "Transport",
            page,
            Style.MENU,
            "ndi",
            section=True,
            menu=(("ndi", "NDI"), ("spout", "Spout / Syphon")),
            help="How pictures are sent. Spout (Windows) and Syphon (macOS) need both programs on one machine.",
        ),
        Parameter(
            "Sendname",
            "Send Name",
            page,
            Style.STR,
            "Tidecast In",
            help="Name under which this component sends its input. Unique on this machine.",
        ),
        Parameter("Receivename", "Receive Name", page, Style.STR, "Tidecast", help="Name of the output of Tidecast."),
        Parameter(
            "Source",
            "NDI Source",
            page,
            Style.STR,
            "",
            read_only=True,
            help="The full NDI name that was found for Receive Name.",
        ),
        Parameter(
            "Extraips",
            "Extra IPs",
            page,
            Style.STR,
            "",
            help="Addresses of machines whose NDI sources are not found automatically.",
        ),
        Parameter(
            "Width", "Width", page, Style.INT, 512, low=32, high=4096, help="Width at which the input is sent (pixels)."
        ),
        Parameter(
            "Height",
            "Height",
            page,
            Style.INT,
            512,
            low=32,
            high=4096,
            help="Height at which the input is sent (pixels).",
        ),
        Parameter(
            "Resend",
            "Send All",
            page,
            Style.PULSE,
            0,
            section=True,
            help="Send every parameter of the pages Stream and Prompts again.",
        ),
        Parameter("Fetch", "Fetch All", page, Style.PULSE, 0, help="Fetch every value from Tidecast."),
        Parameter(
            "Listinputs",
            "List Inputs",
            page,
            Style.PULSE,
            0,
            help="Write the sources that Tidecast can see into the log.",
        ),
    ]


def engine() -> list[Parameter]:
    """The page Engine: Tidecast as a process on this machine."""
    page = "Engine"
    return [
        Parameter(
            "Start",
            "Start",
            page,
            Style.PULSE,
            0,
            help="Start Tidecast on this machine as a process of its own. If one already answers, it is used instead.",
        ),
        Parameter(
            "Stop",
            "Stop",
            page,
            Style.PULSE,
            0,
            help="Stop the Tidecast that this component started: by OSC, after ten seconds by killing its processes.",
        ),
        Parameter(
            "Process",
            "Process",
            page,
            Style.STR,
            "stopped",
            read_only=True,
            help="State of the process that this component started.",
        ),
        Parameter(
            "Executable",
            "Executable",
            page,
            Style.FILE,
            "",
            section=True,
            help="The program tidecast, or the python of the environment in which it is installed. Empty: "
            "it is searched for.",
        ),
        Parameter(
            "Arguments",
            "Arguments",
            page,
            Style.STR,
            "run",
            help="Command and options, such as: run --config laptop. Input, output and OSC port are added "
            "by this component.",
        ),
        Parameter(
            "Autostart", "Start with Project", page, Style.TOGGLE, False, help="Start Tidecast when the project opens."
        ),
        Parameter(
            "Keeprunning",
            "Keep Running",
            page,
            Style.TOGGLE,
            False,
            help="Leave Tidecast running when TouchDesigner quits.",
        ),
        Parameter(
            "Logfile",
            "Log File",
            page,
            Style.STR,
            "",
            read_only=True,
            help="File that the process writes to; its lines also appear at the third output.",
        ),
    ]


def callbacks() -> list[Parameter]:
    """The page Callbacks: functions of the user."""
    page = "Callbacks"
    return [
        Parameter(
            "Usecallbacks",
            "Use Callbacks",
            page,
            Style.TOGGLE,
            True,
            help="Call the functions onReady, onError and onPromptDone of the DAT below.",
        ),
        Parameter(
            "Callbackdat",
            "Callback DAT",
            page,
            Style.STR,
            "callbacks",
            help="Path of the DAT with your functions, seen from inside this component; an absolute path "
            "still works after an update of the component.",
        ),
    ]


def about(version: str) -> list[Parameter]:
    """The page About, with this version of Tidecast."""
    page = "About"
    return [
        Parameter(
            "Version",
            "Version",
            page,
            Style.STR,
            version,
            read_only=True,
            help="Version of Tidecast from which this component was generated.",
        ),
        Parameter(
            "Verified",
            "Verified",
            page,
            Style.STR,
            "see VERIFIED.md",
            read_only=True,
            help="The file VERIFIED.md of Tidecast lists the TouchDesigner builds in which a person has opened "
            "this component.",
        ),
    ]
