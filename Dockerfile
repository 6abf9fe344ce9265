# The image of MCP Proxy API, from the lock file with uv. Dockerfile.pip makes the same image with plain pip.
#
#   docker build -t mcp-proxy-api .
#   docker run --rm -p 127.0.0.1:5000:5000 -e JWT_SECRET="$(openssl rand -base64 48)" mcp-proxy-api

FROM python:3.13-slim AS build
RUN pip install --no-cache-dir "uv>=0.13,<0.14"
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PROJECT_ENVIRONMENT=/opt/mcp-proxy-api \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /build
# The dependencies first: they change less often than the program, and their layer is kept.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-default-groups --no-install-project
COPY README.md LICENSE ./
COPY mcp_proxy mcp_proxy
RUN uv sync --frozen --no-default-groups --no-editable

FROM python:3.13-slim
# The state directory exists in the image, so that a volume mounted there belongs to the user.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin mcp-proxy \
    && install -d -o mcp-proxy -m 0700 /var/lib/mcp-proxy
COPY --from=build /opt/mcp-proxy-api /opt/mcp-proxy-api
ENV PATH=/opt/mcp-proxy-api/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=5000 \
    MCP_PROXY_STATE_DIR=/var/lib/mcp-proxy
WORKDIR /var/lib/mcp-proxy
USER 10001
EXPOSE 5000
VOLUME /var/lib/mcp-proxy
HEALTHCHECK --interval=10s --timeout=4s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/health/live\", timeout=3)"]
ENTRYPOINT ["mcp-proxy-api"]
CMD ["serve"]
