"""Variables that choose what a started command runs: its loader, interpreter, packages, where it fetches them.

A command that fits a template would be a different one with them, so that the API takes none of them. In files they
are free: whoever writes those also chooses the command.
"""

from __future__ import annotations

import re

_STEERING = (
    # The dynamic loader and the C library (mostly what it drops itself for privileged programs, ld.so(8))
    "LD_.* DYLD_.* GLIBC_.* MALLOC_.* GCONV_PATH GETCONF_DIR LOCPATH NLSPATH HOSTALIASES LOCALDOMAIN RES_OPTIONS",
    "RESOLV_.* TERMINFO.* OPENSSL_.*",
    # Where programs and their settings are found
    "PATH PATHEXT COMSPEC CDPATH HOME USERPROFILE APPDATA XDG_.* TMPDIR TEMP TMP SHELL",
    # Shells
    "BASH_.* BASHOPTS SHELLOPTS ENV IFS PS4 PROMPT_COMMAND ZDOTDIR FPATH KSH_.*",
    # Programs that are started on the way
    ".*EDITOR .*PAGER LESS(OPEN|CLOSE) VISUAL BROWSER SSH_ASKPASS.* SUDO_.* GIT_(?!AUTHOR_|COMMITTER_).*",
    "DOCKER_.* CONTAINER.*_(HOST|CONNECTION) BUILDKIT_.* KUBECONFIG",
    # Interpreters and virtual machines
    "PYTHON.* VIRTUAL_ENV CONDA_.* NODE_(?!ENV$).* TS_NODE_.* BUN_.* DENO_.* PERL.* RUBY.* GEM_.* BUNDLE_.* PHP.*",
    "LUA_.* JULIA_.* R_.* TCL.* ERL_.* ELIXIR_.* _?JAVA_.* JDK_.* JVM_.* CLASSPATH MAVEN_.* GRADLE_.*",
    "DOTNET_.* CORECLR_.* COR_.* COMPLUS_.* NUGET_.*",
    # Package runners: which index, which version, which settings
    "UV_.* UVX_.* PIP_.* PIPX_.* POETRY_.* PDM_.* HATCH_.* NPM_.* NPX_.* YARN_.* PNPM_.* COREPACK_.* VOLTA_.* NVM_.*",
    "FNM_.* CARGO_.* RUST.* GO[A-Z0-9]* CGO_.*",
    # Between the command and where it fetches from
    "(HTTPS?|ALL|FTP|NO)_PROXY SSL_CERT_.* SSLKEYLOGFILE REQUESTS_CA_BUNDLE CURL_.* NETRC",
)
"""Whole names as patterns, separated by spaces."""
_PATTERN = re.compile("|".join(" ".join(_STEERING).split()), re.IGNORECASE | re.DOTALL)


def steers(name: str) -> bool:
    """Whether a variable can change which program a command turns out to be. Lower case counts as well: npm's do."""
    return _PATTERN.fullmatch(name) is not None
