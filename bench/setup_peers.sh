#!/usr/bin/env bash
# Installs the gateways to compare with into DIR: bench/setup_peers.sh DIR [NAME…]   (all of them unless named)
# What cannot be installed is named at the end, and the others are there. Needs npm for the two that are JavaScript.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

dir=$(mkdir -p "${1:?where to}" && cd "$1" && pwd)
shift
find_uv
python=$(find_python)
wanted=" ${*:-mcpo mcpproxy fastmcp contextforge litellm router supergateway mcp-proxy} "
failed=()

asked() { [[ $wanted == *" $1 "* ]]; }

peer() { # NAME PACKAGE…: a virtual environment
  local name=$1
  shift
  if ! asked "$name"; then return; fi
  say "$name"
  { [ -x "$dir/v/$name/bin/python" ] || "$uv" venv --quiet --python "$python" "$dir/v/$name"; } &&
    "$uv" pip install --quiet --python "$dir/v/$name/bin/python" "$@" || failed+=("$name")
}

npm_peer() { # PACKAGE@VERSION
  local name=${1%@*}
  if ! asked "$name"; then return; fi
  say "$name"
  mkdir -p "$dir/npm/$name"
  (cd "$dir/npm/$name" && npm init -y >/dev/null && npm install --no-audit --no-fund --silent "$1") || failed+=("$name")
}

overrides=$dir/overrides.txt
echo 'certifi' >"$overrides" # fastmcp asks for one of the last weeks, which not every mirror has yet
peer mcpo 'mcpo==0.0.20' 'mcp<2' 'fastapi<0.130' # its dependencies are not pinned, and no longer fit
peer mcpproxy 'mcp-proxy==0.13.0'
peer fastmcp 'fastmcp==4.1.6' uvicorn uvloop httptools --overrides "$overrides"
peer contextforge 'mcp-contextforge-gateway==1.0.7.post20260921'
peer litellm 'litellm[proxy]==1.106.2'
peer router 'mcp-router==1.1.0' 'mcp<2' # its wheel has no entry point: put main.py of its repository at DIR/router-main.py
npm_peer supergateway@4.0.0
npm_peer mcp-proxy@6.7.19

if ((${#failed[@]})); then die "not installed: ${failed[*]}"; fi
