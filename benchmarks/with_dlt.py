"""The same file by dlt: Arrow tables, merge on the id. Runs in an environment of its own.

`python with_dlt.py FILE URL PIPELINES_DIR`
"""

import sys

import dlt
import pyarrow as pa
import pyarrow.csv as pacsv


@dlt.resource(name="contacts", primary_key="id", write_disposition="merge")
def contacts(path):
    names = pacsv.open_csv(path).schema.names
    reader = pacsv.open_csv(
        path,
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
    )
    for batch in reader:
        yield pa.Table.from_batches([batch])


if __name__ == "__main__":
    path, url, folder = sys.argv[1:4]
    pipeline = dlt.pipeline(
        "bench", destination=dlt.destinations.postgres(url), dataset_name="dlt_bench", pipelines_dir=folder, progress=None
    )
    pipeline.run(contacts(path), loader_file_format="csv")
