"""The channel of each row beside its tokens, for losses that are logged channel by channel."""

from pathlib import Path

from swiftcore.data import SplitRows, has_split
from swiftcore.errors import DataError

_BATCH_ROWS = 1024


def write_channels(dataset_dir: Path, out_dir: Path) -> None:
    """Write the channels of the train and val rows beside their encoded rows.

    Raises:
        DataError: no training row has a channel.
    """
    for split in ("train", "val"):
        if not has_split(dataset_dir, split):
            continue
        channels = _channels_of(SplitRows(dataset_dir, split))
        if split == "train" and not channels:
            raise DataError(
                "no row has a channel",
                where="train.enable_channel_loss",
                found=f"{dataset_dir} without a column channel",
                do="give rows a channel, such as the name of their source",
            )
        _write(_file(out_dir, split), channels)


def load_channels(folder: Path, split: str) -> dict[int, str]:
    """Return the channels of a split by row number; rows without one are absent."""
    import pyarrow.parquet as pq

    file = _file(folder, split)
    if not file.is_file():
        return {}
    table = pq.read_table(file)
    return dict(zip(*(table.column(name).to_pylist() for name in ("row", "channel")), strict=True))


def _channels_of(rows: SplitRows) -> dict[int, str]:
    channels: dict[int, str] = {}
    start = 0
    for batch in rows.batches(_BATCH_ROWS):
        for number, row in enumerate(batch, start):
            if row.get("channel") is not None:
                channels[number] = str(row["channel"])
        start += len(batch)
    return channels


def _write(file: Path, channels: dict[int, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("row", pa.int64()), ("channel", pa.string())])
    columns = {"row": list(channels), "channel": list(channels.values())}
    table = pa.table(columns, schema=schema)
    pq.write_table(table, file, version="2.6", compression="zstd")


def _file(folder: Path, split: str) -> Path:
    return folder / f"{split}_channels.parquet"
