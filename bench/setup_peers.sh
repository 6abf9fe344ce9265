#!/bin/sh
# Install the peers to compare with into DIR:  setup_peers.sh DIR [python]
set -eu
dir=$1 python=${2:-python3}
mkdir -p "$dir" && cd "$dir"
venv() { name=$1; shift; [ -d "v/$name" ] || "$python" -m venv "v/$name"; "v/$name/bin/pip" install -q "$@"; }
venv mcpo 'mcpo==0.0.20' 'mcp<2' 'fastapi<0.130'       # its unpinned dependencies no longer fit
venv mcpproxy 'mcp-proxy==0.13.0'
venv fastmcp 'fastmcp==4.1.6' uvicorn uvloop httptools # wants a recent certifi: if that does not resolve, --no-deps first
venv contextforge 'mcp-contextforge-gateway==1.0.7.post20260921'
venv litellm 'litellm[proxy]==1.106.2'
venv router 'mcp-router==1.1.0' 'mcp<2'                # also put its repository's main.py at DIR/router-main.py
for pkg in supergateway@4.0.0 mcp-proxy@6.7.19; do
  name=${pkg%@*}; mkdir -p "npm/$name"; (cd "npm/$name" && npm init -y >/dev/null && npm install --no-audit --no-fund "$pkg")
done
