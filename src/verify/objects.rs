//! The formats, as the proof reads them.

use bytes::Bytes;

use super::{RowKey, RowReader, Rows};
use crate::archive::manifest::ObjectKind;
use crate::encode::read::{ArchivedReject, ArchivedRow, Projection, read_rejects, read_rows};

/// Reads objects of every format that the archive has.
#[derive(Clone, Copy, Debug)]
pub struct ObjectRows;

impl RowReader for ObjectRows {
    fn rows(&self, kind: ObjectKind, key: &str, bytes: Bytes) -> Result<Rows, String> {
        match kind {
            ObjectKind::Events => {
                let rows = read_rows(bytes, key, Projection::Keys).map_err(|error| error.to_string())?;
                Ok(Box::new(rows.map(|row| row.map(event).map_err(|error| error.to_string()))))
            }
            ObjectKind::Rejected => {
                let rows = read_rejects(bytes).map_err(|error| error.to_string())?;
                Ok(Box::new(rows.map(|row| row.map(reject).map_err(|error| error.to_string()))))
            }
        }
    }
}

fn event(row: ArchivedRow) -> RowKey {
    RowKey {
        log_id: row.log_id,
        version: row.version,
        emit_time: row.emit_time,
        shard: row.shard,
        position: row.payload,
        index: row.index,
        conflict: row.conflict,
    }
}

fn reject(row: ArchivedReject) -> RowKey {
    RowKey {
        log_id: None,
        version: 0,
        emit_time: None,
        shard: row.shard,
        position: row.payload,
        index: row.index,
        conflict: false,
    }
}
