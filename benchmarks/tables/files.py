"""A table of routing many files."""

from benchmarks.tables.registry import markdown, percent, read, table


@table("routing-files")
def files() -> str:
    """What each tool takes for how many files, its start included."""
    rows = [
        [
            r["tool"],
            f"{r['files']:,}",
            f"{r['seconds']:.1f}",
            f"{r['cpu_seconds']:.1f}",
            r["peak_mb"],
            f"{r['files_per_s']:.1f}",
            percent(r["accuracy"]),
        ]
        for r in read("files.json")["rows"]
    ]
    return markdown(["tool", "files", "s", "CPU s", "MB", "files/s", "right"], rows)
