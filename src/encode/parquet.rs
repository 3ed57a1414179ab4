//! Rows to Parquet: the same rows give the same bytes.
//!
//! A row passes three bounds, each a function of the rows alone and never of the calls or of time: rows gather in
//! *chunks* (so that an idle partition holds a few rows and no compressor), chunks go into column writers that cut
//! *pages*, and *row groups* close before they grow large (so that memory stays flat), or where the batch says so.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::Compression as Codec;
use parquet::file::properties::{
    BloomFilterProperties, EnabledStatistics, WriterProperties, WriterPropertiesPtr, WriterVersion,
};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, TypePtr};
use rayon::prelude::*;

use super::chunk::{Chunk, Extent, Finished};
use super::compress::Compressors;
use super::pages::{ColumnChunk, PageStores, Pages};
use super::schema::{self, COLUMN_COUNT, COLUMNS, ColumnType, Index};
use super::segments::{Pieces, Segments};
use super::{Compression, EncodeError, Layout, Row, whole_bytes};

/// The file's `created_by`. It names the form of the bytes and not the program's version, so that a batch begun by one
/// version is finished by another with the same bytes; raise it when the same rows come to other bytes.
pub const CREATED_BY: &str = "auditlake format 1";

/// A row group closes with the chunk that reaches either bound. 64 Mi bytes of plain rows are what an engine reads as
/// one task; more rows than these would double the bloom filter, which is kept in memory for every open object.
const ROW_GROUP_ROWS: u64 = 64 * 1_024;
const ROW_GROUP_BYTES: u64 = 64 << 20;

/// Small enough that an open object holds little that is not compressed, large enough for compression to find repeats.
const PAGE_BYTES: usize = 256 << 10;
/// A dictionary's indexes take eight bytes a row until their page is cut, in two columns of three.
const PAGE_ROWS: usize = 8 * 1_024;
/// A dictionary that outgrows this was no gain.
const DICTIONARY_BYTES: usize = 128 << 10;
/// Long enough for every name, address and position; JSON text has no statistics at all.
const STATISTICS_BYTES: usize = 64;

/// What a footer and its indexes cost, a row group; measured, and small.
const FOOTER_BYTES: u64 = 9 << 10;

/// What rows come to, per plain byte, before anything of the object has been compressed.
fn first_guess(layout: &Layout) -> f64 {
    match layout.compression {
        Compression::None => 0.8,
        Compression::Snappy => 0.35,
        Compression::Gzip | Compression::Zstd => 0.15,
    }
}

/// What all objects of one layout share.
#[derive(Debug)]
pub(super) struct ParquetSettings {
    arrow: SchemaRef,
    root: TypePtr,
    properties: WriterPropertiesPtr,
    compressors: Arc<Compressors>,
}

impl ParquetSettings {
    pub(super) fn new(layout: &Layout) -> Result<Self, EncodeError> {
        let arrow = schema::arrow_schema();
        let root = ArrowSchemaConverter::new().convert(&arrow)?.root_schema_ptr();
        Ok(Self { arrow, root, properties: Arc::new(properties()), compressors: Arc::new(Compressors::new(layout)?) })
    }
}

fn properties() -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(CREATED_BY.to_owned())
        // Pages are compressed when they are finished, by compressors that all share.
        .set_compression(Codec::UNCOMPRESSED)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_statistics_truncate_length(Some(STATISTICS_BYTES))
        .set_column_index_truncate_length(Some(STATISTICS_BYTES));
    for column in &COLUMNS {
        let path = column_path(column);
        let statistics = if column.index == Index::None { EnabledStatistics::None } else { EnabledStatistics::Page };
        builder = builder
            .set_column_dictionary_enabled(path.clone(), column.dictionary)
            .set_column_statistics_enabled(path.clone(), statistics);
        if column.index == Index::Bloom {
            // Sized for a full row group; the writer folds it down to what the values need.
            let filter = BloomFilterProperties::builder().with_fpp(0.01).with_max_ndv(ROW_GROUP_ROWS).build();
            builder = builder.set_column_bloom_filter_properties(path, filter);
        }
    }
    builder.build()
}

/// The path of the column's one leaf.
fn column_path(column: &schema::Column) -> ColumnPath {
    let parts: &[&str] = match column.kind {
        ColumnType::TextList => &[column.name, "list", "element"],
        _ => &[column.name],
    };
    ColumnPath::new(parts.iter().map(|part| (*part).to_owned()).collect())
}

/// One Parquet file being written.
pub(super) struct ParquetEncoder {
    settings: Arc<ParquetSettings>,
    layout: Arc<Layout>,
    /// Rows that no column writer has seen.
    chunk: Chunk,
    /// Whether the chunk begins a row group.
    begins_group: bool,
    /// Full chunks that none has seen either, in order.
    waiting: Vec<Finished>,
    /// Nothing is opened for an object that has not filled a chunk.
    file: Option<OpenFile>,
    estimate: Estimate,
}

/// The part of a file that has left the first chunk.
struct OpenFile {
    writer: SerializedFileWriter<Segments>,
    factory: ArrowRowGroupWriterFactory,
    pages: Arc<Pages>,
    group: Option<RowGroup>,
}

/// The row group being written.
struct RowGroup {
    columns: Vec<ArrowColumnWriter>,
    extent: Extent,
}

/// Final bytes of each column per byte that waited for its page.
type Ratios = [f64; COLUMN_COUNT];

/// What the size so far is known by.
struct Estimate {
    /// Final bytes of all but the rows in the chunk.
    flushed: f64,
    /// Final bytes per plain byte, of everything so far.
    overall: f64,
    /// At the last row group's end, or in a trial of the first chunk.
    columns: Ratios,
    /// Plain bytes of everything that left the chunk.
    plain: u64,
    /// Heap of everything but the chunk. Asking for it goes through every column, so it is asked once a chunk.
    memory: u64,
}

impl ParquetEncoder {
    pub(super) fn new(settings: Arc<ParquetSettings>, layout: Arc<Layout>) -> Self {
        let guess = first_guess(&layout);
        let estimate = Estimate {
            flushed: FOOTER_BYTES as f64,
            overall: guess,
            columns: [guess; COLUMN_COUNT],
            plain: 0,
            memory: 0,
        };
        Self {
            settings,
            layout,
            chunk: Chunk::default(),
            begins_group: false,
            waiting: Vec::new(),
            file: None,
            estimate,
        }
    }

    /// Takes one row, without encoding anything; whether it filled a chunk.
    pub(super) fn append(&mut self, row: &Row<'_>) -> bool {
        self.chunk.append(row, &self.layout);
        let is_full = self.chunk.is_full();
        if is_full {
            self.fill();
        }
        is_full
    }

    fn fill(&mut self) {
        let begins_group = std::mem::take(&mut self.begins_group);
        self.waiting.push(Finished { begins_group, ..self.chunk.finish() });
    }

    /// The chunk that is filled next begins a row group.
    pub(super) fn begin_group(&mut self) {
        self.begins_group = true;
    }

    /// Whether a row group is open.
    pub(super) fn is_open(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.group.is_some())
    }

    /// Encodes the full chunks and closes the row group: the next chunk has to begin one.
    pub(super) fn end_group(&mut self) -> Result<(), EncodeError> {
        self.encode()?;
        if let Some(file) = &mut self.file
            && let Some(ratios) = file.close_group()?
        {
            self.estimate.columns = ratios;
            self.estimate.of(file);
        }
        Ok(())
    }

    /// Whether full chunks wait to be encoded.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Encodes the chunks that are full, the columns side by side.
    pub(super) fn encode(&mut self) -> Result<(), EncodeError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            slot => slot.insert(OpenFile::new(&self.settings)?),
        };
        let chunks = std::mem::take(&mut self.waiting);
        if self.estimate.plain == 0 {
            self.estimate.columns = file.trial(&self.settings.arrow, &chunks[0])?;
        }
        self.estimate.plain += plain_bytes(&chunks);
        if let Some(ratios) = file.write(&self.settings.arrow, &chunks)? {
            self.estimate.columns = ratios;
        }
        self.estimate.of(file);
        Ok(())
    }

    /// What the file would come to if it ended now, about.
    pub(super) fn encoded_bytes(&self) -> u64 {
        let plain = self.chunk.plain_bytes() + plain_bytes(&self.waiting);
        whole_bytes(self.estimate.flushed + plain as f64 * self.estimate.overall)
    }

    /// What is held on the heap.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.chunk.memory_bytes() + 2 * plain_bytes(&self.waiting) + self.estimate.memory + size_of::<Self>() as u64
    }

    /// The file.
    pub(super) fn finish(mut self) -> Result<Pieces, EncodeError> {
        if self.chunk.rows() > 0 {
            self.fill();
        }
        self.encode()?;
        let mut file = match self.file {
            Some(file) => file,
            None => OpenFile::new(&self.settings)?,
        };
        file.close_group()?;
        Ok(file.writer.into_inner()?.into_pieces())
    }
}

impl Estimate {
    fn of(&mut self, file: &OpenFile) {
        self.flushed = file.encoded_bytes(&self.columns);
        self.overall = self.flushed / self.plain as f64;
        self.memory = file.memory_bytes();
    }
}

impl OpenFile {
    fn new(settings: &ParquetSettings) -> Result<Self, EncodeError> {
        let writer =
            SerializedFileWriter::new(Segments::default(), settings.root.clone(), settings.properties.clone())?;
        let pages = Arc::new(Pages::new(settings.compressors.clone()));
        let factory = ArrowRowGroupWriterFactory::new(&writer, settings.arrow.clone())
            .with_page_store_factory(Arc::new(PageStores(pages.clone())));
        Ok(Self { writer, factory, pages, group: None })
    }

    /// Writes chunks; where that closes a row group, gives what each column came to, per byte that waited for its page.
    fn write(&mut self, arrow: &SchemaRef, chunks: &[Finished]) -> Result<Option<Ratios>, EncodeError> {
        let mut ratios = None;
        let mut left = chunks;
        while let Some(first) = left.first() {
            if first.begins_group {
                ratios = self.close_group()?.or(ratios);
            }
            let group = match &mut self.group {
                Some(group) => group,
                slot => {
                    let columns = self.factory.create_column_writers(self.writer.flushed_row_groups().len())?;
                    slot.insert(RowGroup { columns, extent: Extent::default() })
                }
            };
            let (fitting, rest) = left.split_at(group.room_for(left));
            group.write(arrow, fitting)?;
            left = rest;
            if is_full(&group.extent) {
                ratios = self.close_group()?;
            }
        }
        Ok(ratios)
    }

    fn close_group(&mut self) -> Result<Option<Ratios>, EncodeError> {
        let Some(group) = self.group.take() else { return Ok(None) };
        let columns = group.close(&self.pages)?;
        let mut ratios = [0.0; COLUMN_COUNT];
        let mut writer = self.writer.next_row_group()?;
        for ((chunk, came_to), ratio) in columns.into_iter().zip(&mut ratios) {
            *ratio = came_to;
            writer.append_column(&chunk.bytes, chunk.close)?;
        }
        writer.close()?;
        Ok(Some(ratios))
    }

    /// What each column comes to, per byte that waits for its page, by encoding the chunk and throwing the result away.
    /// It is done once an object: without it the size of columns too small to have filled a page would be a guess.
    fn trial(&self, arrow: &SchemaRef, chunk: &Finished) -> Result<Ratios, EncodeError> {
        let columns = self.factory.create_column_writers(0)?;
        let mut group = RowGroup { columns, extent: Extent::default() };
        group.write(arrow, std::slice::from_ref(chunk))?;
        let columns = group.close(&self.pages)?;
        Ok(std::array::from_fn(|index| columns[index].1))
    }

    fn encoded_bytes(&self, ratios: &Ratios) -> f64 {
        let closed = self.writer.bytes_written() as f64;
        let footer = (FOOTER_BYTES * (self.writer.flushed_row_groups().len() as u64 + 1)) as f64;
        let Some(group) = &self.group else { return closed + footer };
        let open = (0..COLUMN_COUNT).map(|index| {
            let sizes = self.pages.sizes(index);
            let done = sizes.compressed as f64;
            let waiting = group.columns[index].get_estimated_total_bytes() as f64 - sizes.plain as f64;
            // What waits for its page is plain, so the rest of what came is in the pages that are done.
            let paged = group.extent.plain[index] as f64 - waiting;
            let learnt = done > 0.0 && paged > 0.0 && !COLUMNS[index].dictionary;
            done + waiting * if learnt { done / paged } else { ratios[index] }
        });
        // A bloom filter of ten bits a value, to the next power of two.
        closed + footer + open.sum::<f64>() + (group.extent.rows * 10 / 8).next_power_of_two() as f64
    }

    fn memory_bytes(&self) -> u64 {
        let group =
            self.group.as_ref().map_or(0, |group| group.columns.iter().map(ArrowColumnWriter::memory_size).sum());
        // The file's writer buffers 8 KiB.
        (self.writer.inner().capacity() + (8 << 10) + group) as u64
    }
}

/// Whether a row group of this extent closes.
fn is_full(extent: &Extent) -> bool {
    extent.rows >= ROW_GROUP_ROWS || extent.total >= ROW_GROUP_BYTES
}

fn plain_bytes(chunks: &[Finished]) -> u64 {
    chunks.iter().map(|chunk| chunk.extent.total).sum()
}

impl RowGroup {
    /// How many of these chunks to take before it is full.
    fn room_for(&self, chunks: &[Finished]) -> usize {
        let mut extent = self.extent;
        let fills = |chunk: &Finished| {
            extent += chunk.extent;
            is_full(&extent)
        };
        let of_group = chunks.iter().skip(1).position(|chunk| chunk.begins_group).map_or(chunks.len(), |last| last + 1);
        chunks[..of_group].iter().position(fills).map_or(of_group, |last| last + 1)
    }

    /// Each column sees the chunks in order, whichever thread writes it: who writes them changes no byte.
    fn write(&mut self, arrow: &SchemaRef, chunks: &[Finished]) -> Result<(), EncodeError> {
        let write = |(index, column): (usize, &mut ArrowColumnWriter)| -> Result<(), EncodeError> {
            for chunk in chunks {
                for leaf in compute_leaves(&arrow.fields()[index], &chunk.arrays[index])? {
                    column.write(&leaf)?;
                }
            }
            Ok(())
        };
        self.columns.par_iter_mut().enumerate().with_max_len(1).try_for_each(write)?;
        for chunk in chunks {
            self.extent += chunk.extent;
        }
        Ok(())
    }

    /// The columns' chunks, and what each came to per byte that waited for its page.
    fn close(self, pages: &Pages) -> Result<Vec<(ColumnChunk, f64)>, EncodeError> {
        let close = |(index, column): (usize, ArrowColumnWriter)| {
            let done = pages.sizes(index);
            let waiting = (column.get_estimated_total_bytes() as u64).saturating_sub(done.plain);
            let chunk = pages.close(index, column)?;
            let came_to = chunk.close.bytes_written - done.compressed;
            Ok((chunk, if waiting == 0 { 0.0 } else { came_to as f64 / waiting as f64 }))
        };
        self.columns.into_par_iter().enumerate().with_max_len(1).map(close).collect()
    }
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
