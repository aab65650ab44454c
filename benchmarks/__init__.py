"""One command each: `python -m benchmarks.NAME [--quick]`. Each compares with its peer in the same
run, prints a table and ends with one line of JSON; without `--quick` it also writes
`benchmarks/results/NAME.json`."""
