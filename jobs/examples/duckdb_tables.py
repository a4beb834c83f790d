"""What purification did to the answers, in SQL: accuracy before and after by class, and the ten most suspect samples.

Install: pip install duckdb
"""

import json
import sys
from pathlib import Path

import duckdb

output = Path(sys.argv[1])
records = [json.loads(path.read_text()) for path in sorted((output / "predictions").rglob("*.json"))]
answers = [str(output / "predictions" / record["classifier"] / f"{record['shard']}.parquet") for record in records]

answered = duckdb.read_parquet(answers).filter("status = 'ok'")
accuracy = """
    select label, count(*) as images, avg((prediction_before = label)::int) as before,
           avg((prediction_after = label)::int) as after, avg(flipped::int) as flipped
    from answered where label is not null group by label order by label
"""
print(duckdb.sql(accuracy))
print(answered.order("suspicion desc nulls last, key").limit(10).project("key, shard, prediction_before, suspicion"))
