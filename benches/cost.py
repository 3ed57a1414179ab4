#!/usr/bin/env python3
"""What a fleet costs: `python3 benches/cost.py [--shards 1000] [--workers 100] [--rate 1000]`.

Counts operations from the rates that tests hold (tests/worker: `an_hour_of_leases_costs_what_the_budget_says`,
`twenty_workers_share_two_hundred_shards_and_then_rest`) and multiplies them by prices, which are arguments: the defaults are AWS's
for us-east-1, on demand, as far as we know them. Look yours up.
"""

import argparse

ROW_BYTES = 800  # a lease row
CLAIM_BYTES = 215  # a claim, with the 100 that DynamoDB adds to an item
HOURS_A_MONTH = 730
PARTITION_WRITES, PARTITION_READS = 1_000, 3_000  # units a second of one DynamoDB partition; the lease table is one


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1000, help="records a second, all shards together")
    parser.add_argument("--failover", type=float, default=10, help="lease.failover, seconds")
    parser.add_argument("--window", type=float, default=30, help="batch.window, minutes")
    parser.add_argument("--record-bytes", type=float, default=690)
    parser.add_argument("--archived-bytes", type=float, default=250, help="bytes a record in the archive, raw kept")
    parser.add_argument("--claim-days", type=float, default=35, help="dedupe.window")
    parser.add_argument("--million-writes", type=float, default=0.625, help="dollars, DynamoDB write units")
    parser.add_argument("--million-reads", type=float, default=0.125, help="dollars, DynamoDB read units")
    parser.add_argument("--table-gb-month", type=float, default=0.25)
    parser.add_argument("--thousand-puts", type=float, default=0.005, help="dollars, S3 PUT and LIST")
    parser.add_argument("--thousand-gets", type=float, default=0.0004)
    parser.add_argument("--bucket-gb-month", type=float, default=0.023)
    return parser.parse_args()


def main():
    asked = arguments()
    renewals = asked.shards * 3 * 3600 / asked.failover  # a third of the failover each
    scans = asked.workers * 3600 / asked.failover
    scan_units = asked.shards * ROW_BYTES / 4096 / 2
    batches = asked.shards * 60 / asked.window if asked.rate else 0
    records = asked.rate * 3600
    hourly = [
        # what, how many an hour, dollars each
        ("lease writes", renewals, asked.million_writes / 1e6),
        ("lease read units (looks)", scans * scan_units, asked.million_reads / 1e6),
        ("claims written", records, asked.million_writes / 1e6),
        # An object for each date, here one, and the manifest; a look for the manifest before.
        ("S3 puts", batches * 2, asked.thousand_puts / 1e3),
        ("S3 gets", batches, asked.thousand_gets / 1e3),
    ]
    print(f"{asked.shards:,} shards, {asked.workers:,} workers, {asked.rate:,.0f} records a second\n")
    print("| | an hour | dollars a month |\n|---|---|---|")
    dollars = 0
    for name, count, price in hourly:
        month = count * price * HOURS_A_MONTH
        dollars += month
        print(f"| {name} | {count:,.0f} | {month:,.2f} |")
    claims_gb = asked.rate * 86_400 * asked.claim_days * CLAIM_BYTES / 1e9
    month = claims_gb * asked.table_gb_month
    dollars += month
    print(f"| claims kept for {asked.claim_days:.0f} days, GB | {claims_gb:,.0f} | {month:,.2f} |")
    grown = records * HOURS_A_MONTH * asked.archived_bytes / 1e9
    print(f"| archive, GB more every month | {grown:,.0f} | {grown * asked.bucket_gb_month:,.2f} |")
    if asked.rate:
        billion = dollars / (records * HOURS_A_MONTH) * 1e9
        print(f"\nWithout the archive's own storage: {dollars:,.0f} dollars a month, {billion:,.0f} for a billion records.")
    writes, reads = renewals / 3600, scans * scan_units / 3600
    print(
        f"The lease table takes {writes:,.0f} write and {reads:,.0f} read units a second, of the {PARTITION_WRITES:,} and "
        f"{PARTITION_READS:,} that one partition gives."
    )


if __name__ == "__main__":
    main()
