"""Which reader a file needs, told from its name alone.

A name that says nothing is refused rather than guessed: a wrong guess would put noise into a
training set without anybody noticing.
"""

from pathlib import Path

_DOCUMENTS: dict[str, tuple[str, ...]] = {
    "pdf": (".pdf",),
    "docx": (".docx", ".docm"),
    "pptx": (".pptx", ".pptm"),
    "xlsx": (".xlsx", ".xlsm"),
    "html": (".html", ".htm", ".xhtml"),
    "markdown": (".md", ".markdown"),
    "rst": (".rst",),
    "org": (".org",),
    "epub": (".epub",),
    "eml": (".eml",),
    "rtf": (".rtf",),
    "odt": (".odt",),
    "notebook": (".ipynb",),
    "text": (".txt", ".text", ".log"),
    "csv": (".csv",),
    "tsv": (".tsv",),
    "json": (".json", ".jsonl", ".ndjson"),
}

# language: (Pygments' name of it, suffixes)
_LANGUAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "assembly": ("nasm", (".asm", ".s")),
    "batch": ("batch", (".bat", ".cmd")),
    "c": ("c", (".c", ".h")),
    "clojure": ("clojure", (".clj", ".cljs", ".cljc")),
    "cmake": ("cmake", (".cmake",)),
    "cpp": ("cpp", (".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx")),
    "csharp": ("csharp", (".cs",)),
    "css": ("css", (".css",)),
    "cuda": ("cuda", (".cu", ".cuh")),
    "d": ("d", (".d",)),
    "dart": ("dart", (".dart",)),
    "dockerfile": ("docker", (".dockerfile",)),
    "elixir": ("elixir", (".ex", ".exs")),
    "erlang": ("erlang", (".erl", ".hrl")),
    "fortran": ("fortran", (".f90", ".f95", ".f03")),
    "fsharp": ("fsharp", (".fs", ".fsx")),
    "go": ("go", (".go",)),
    "graphql": ("graphql", (".graphql", ".gql")),
    "groovy": ("groovy", (".groovy", ".gradle")),
    "haskell": ("haskell", (".hs",)),
    "ini": ("ini", (".ini", ".cfg", ".conf")),
    "java": ("java", (".java",)),
    "javascript": ("javascript", (".js", ".mjs", ".cjs", ".jsx")),
    "jinja": ("jinja", (".jinja", ".jinja2", ".j2")),
    "julia": ("julia", (".jl",)),
    "kotlin": ("kotlin", (".kt", ".kts")),
    "latex": ("tex", (".tex", ".sty", ".cls")),
    "less": ("less", (".less",)),
    "lisp": ("common-lisp", (".lisp", ".lsp", ".el")),
    "lua": ("lua", (".lua",)),
    "makefile": ("make", (".mk",)),
    "nim": ("nim", (".nim",)),
    "nix": ("nix", (".nix",)),
    "objective-c": ("objective-c", (".m", ".mm")),
    "ocaml": ("ocaml", (".ml", ".mli")),
    "pascal": ("delphi", (".pas",)),
    "perl": ("perl", (".pl", ".pm")),
    "php": ("php", (".php",)),
    "powershell": ("powershell", (".ps1", ".psm1")),
    "protobuf": ("protobuf", (".proto",)),
    "python": ("python", (".py", ".pyi", ".pyw")),
    "r": ("r", (".r",)),
    "ruby": ("ruby", (".rb", ".rake")),
    "rust": ("rust", (".rs",)),
    "scala": ("scala", (".scala", ".sc")),
    "scheme": ("scheme", (".scm", ".ss", ".rkt")),
    "scss": ("scss", (".scss",)),
    "shell": ("bash", (".sh", ".bash", ".zsh", ".ksh")),
    "solidity": ("solidity", (".sol",)),
    "sql": ("sql", (".sql",)),
    "swift": ("swift", (".swift",)),
    "tcl": ("tcl", (".tcl",)),
    "terraform": ("terraform", (".tf", ".hcl")),
    "toml": ("toml", (".toml",)),
    "typescript": ("typescript", (".ts", ".mts", ".cts", ".tsx")),
    "verilog": ("systemverilog", (".v", ".sv", ".svh")),
    "vhdl": ("vhdl", (".vhd", ".vhdl")),
    "vim": ("vim", (".vim",)),
    "xml": ("xml", (".xml", ".xsd", ".xsl", ".svg")),
    "yaml": ("yaml", (".yaml", ".yml")),
    "zig": ("zig", (".zig",)),
}

# Files that are known by their whole name.
_NAMES = {
    "dockerfile": "dockerfile",
    "makefile": "makefile",
    "gnumakefile": "makefile",
    "cmakelists.txt": "cmake",
    "rakefile": "ruby",
    "gemfile": "ruby",
    "jenkinsfile": "groovy",
    **dict.fromkeys(
        ("readme", "license", "licence", "copying", "notice", "authors", "changelog"), "text"
    ),
}

_ADVICE = {
    ".msg": "save the message as .eml",
    **dict.fromkeys((".doc", ".dot"), "save it as .docx"),
    **dict.fromkeys((".ppt", ".pps"), "save it as .pptx"),
    **dict.fromkeys((".xls", ".xlsb", ".ods"), "save it as .xlsx"),
    ".odp": "save it as .pptx",
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), "unpack it and give the folder"),
    **dict.fromkeys(
        (".png", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff", ".bmp"),
        "an image has no text; run text recognition first",
    ),
}

_KIND_OF_SUFFIX = {suffix: kind for kind, suffixes in _DOCUMENTS.items() for suffix in suffixes} | {
    suffix: language for language, (_, suffixes) in _LANGUAGES.items() for suffix in suffixes
}


def document_kind(path: Path) -> str | None:
    """Return the kind of a document, or the language of source code; None: there is no reader."""
    name = path.name.lower()
    return _NAMES.get(name) or _KIND_OF_SUFFIX.get(path.suffix.lower())


def is_source_code(kind: str) -> bool:
    """Tell whether a kind is a programming, markup or configuration language."""
    return kind in _LANGUAGES


def lexer_name(language: str) -> str:
    """Return the name Pygments knows a language by."""
    return _LANGUAGES[language][0]


def languages() -> list[str]:
    """Return the languages whose source code is recognised."""
    return sorted(_LANGUAGES)


def no_reader(path: Path) -> str:
    """Return why a file of no known kind is not read, and what would help."""
    suffix = path.suffix.lower()
    advice = f" ({_ADVICE[suffix]})" if suffix in _ADVICE else ""
    known = ", ".join(_DOCUMENTS)
    found = suffix or "a name without suffix"
    return (
        f"no reader for this format: {found}{advice}; "
        f"there are readers for {known} and {len(_LANGUAGES)} languages of source code"
    )
