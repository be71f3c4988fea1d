"""Print the mean of every number in a file of rollouts: python scripts/print_aggregate_results.py +jsonl_fpath=FILE.jsonl"""

from rollforge.cli.ng import main

if __name__ == "__main__":
    main()
