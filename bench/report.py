"""The results as people read them: a line a measurement while it runs, two tables at the end."""

from __future__ import annotations


def line(row: dict) -> str:
    bad = ""
    if row["errors"] or row["stuck"] or row["foreign"]:
        bad = f"  !! {row['errors']} errors, {row['stuck']} stuck, {row['foreign']} foreign: {row['error'][:160]}"
    return (
        f"{row['gateway']:24} {row['front']:7} {row['op']:5} c={row['concurrency']:<4}{row['rps']:>9} /s  "
        f"p50 {row['p50_ms']:>8} p95 {row['p95_ms']:>8} p99 {row['p99_ms']:>8} ms  rss {row.get('rss_mib', '-'):>6} MiB  "
        f"cpu/1k {row.get('cpu_s_per_1k')} s (load {row.get('cpu_load')}, others {row.get('other_load')}){bad}"
    )


def show(reports: list[dict]) -> str:
    base = {}
    for r in reports:
        for row in r["rows"]:
            if r["gateway"] == "direct":
                base[row["front"], row["op"], row["concurrency"]] = row
    out = ["| gateway | front | backend | op | c | calls/s | p50 ms | p95 ms | p99 ms | added p50 ms | errors | CPU s/1k | RSS MiB |",
           "|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    for r in reports:
        for row in r["rows"]:
            # REST has no direct counterpart; the modern MCP call is the same work without a session
            ref = base.get(("modern" if row["front"] == "rest" else row["front"], row["op"], row["concurrency"]))
            added = f"{row['p50_ms'] - ref['p50_ms']:.2f}" if ref and row["calls"] and r["gateway"] != "direct" else ""
            bad = row["errors"] + row["stuck"]
            out.append(
                f"| {r['gateway']} | {row['front']} | {r['backend']} | {row['op']} | {row['concurrency']} | {row['rps']:.0f} | "
                f"{row['p50_ms']:.2f} | {row['p95_ms']:.2f} | {row['p99_ms']:.2f} | {added} | {bad} | "
                f"{row.get('cpu_s_per_1k')} | {row.get('rss_mib')} |"
            )
    out += ["", "| gateway | backend | cold start s (median) | idle RSS MiB | with N backends: start s | RSS MiB | note |",
            "|---|---|--:|--:|--:|--:|---|"]  # fmt: skip
    for r in reports:
        out.append(
            f"| {r['gateway']} | {r['backend']} | {r.get('cold_start_s', '')} | {r.get('idle_rss_mib', '')} | "
            f"{r.get('many_start_s', '')} | {r.get('many_idle_rss_mib', '')} | {r.get('failed', r.get('note', ''))[:200]} |"
        )
    return "\n".join(out)
