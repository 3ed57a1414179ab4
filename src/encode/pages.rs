//! Finished pages, compressed here rather than by the column writers: each of those would keep a compressor of its own,
//! a mebibyte for each column of every open object.
//!
//! So the column writers make plain pages, and what they tell at the end is of plain pages: offsets, sizes and the codec
//! are set right when the column's chunk is written into the file.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, PageKey, PageStore, PageStoreArgs, PageStoreFactory};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::OffsetIndexBuilder;

use super::compress::Compressors;
use super::schema::COLUMN_COUNT;

/// The finished pages of the open row group.
#[derive(Debug)]
pub(super) struct Pages {
    compressors: Arc<Compressors>,
    columns: [Mutex<ColumnPages>; COLUMN_COUNT],
}

/// The finished pages of one column.
#[derive(Debug, Default)]
struct ColumnPages {
    /// A plain page's header, until its data come.
    header: Option<Bytes>,
    /// It comes last, and stands first.
    dictionary: Option<Vec<u8>>,
    data: Vec<Vec<u8>>,
    sizes: PageSizes,
}

/// What the finished pages of a column come to, headers included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PageSizes {
    /// As the column writer made them.
    pub(super) plain: u64,
    /// As they stand in the file.
    pub(super) compressed: u64,
    /// As a footer counts them: compressed headers, plain data.
    uncompressed: u64,
}

/// A column's chunk, as it is written into a row group.
pub(super) struct ColumnChunk {
    pub(super) bytes: Bytes,
    pub(super) close: ColumnCloseResult,
}

impl Pages {
    pub(super) fn new(compressors: Arc<Compressors>) -> Self {
        Self { compressors, columns: Default::default() }
    }

    pub(super) fn sizes(&self, column: usize) -> PageSizes {
        self.column(column).sizes
    }

    /// Closes a column: its chunk with all of its pages, which are forgotten here.
    pub(super) fn close(&self, column: usize, writer: ArrowColumnWriter) -> Result<ColumnChunk> {
        let close = writer.close()?.close().clone();
        let pages = std::mem::take(&mut *self.column(column));
        self.chunk(pages, close)
    }

    fn chunk(&self, pages: ColumnPages, close: ColumnCloseResult) -> Result<ColumnChunk> {
        let ColumnPages { dictionary, data, sizes, .. } = pages;
        let mut bytes = Vec::with_capacity(sizes.compressed as usize);
        bytes.extend_from_slice(dictionary.as_deref().unwrap_or_default());
        let metadata = close.metadata.into_builder();
        let metadata = metadata
            .set_compression(self.compressors.codec())
            .set_total_compressed_size(sizes.compressed.cast_signed())
            .set_total_uncompressed_size(sizes.uncompressed.cast_signed())
            .set_dictionary_page_offset(dictionary.is_some().then_some(0))
            .set_data_page_offset(offset(&bytes));
        let plain = close.offset_index.ok_or_else(|| ParquetError::General("a column has no offset index".into()))?;
        let begins = plain.page_locations().iter().map(|page| page.first_row_index);
        let ends = begins.clone().skip(1).chain([close.rows_written.cast_signed()]);
        let mut index = OffsetIndexBuilder::new();
        for ((begin, end), page) in begins.zip(ends).zip(&data) {
            index.append_row_count(end - begin);
            index.append_offset_and_size(offset(&bytes), (page.len() as u32).cast_signed());
            bytes.extend_from_slice(page);
        }
        for &text_bytes in plain.unencoded_byte_array_data_bytes().into_iter().flatten() {
            index.append_unencoded_byte_array_data_bytes(Some(text_bytes));
        }
        let close = ColumnCloseResult {
            bytes_written: sizes.compressed,
            metadata: metadata.build()?,
            offset_index: Some(index.build()),
            ..close
        };
        Ok(ColumnChunk { bytes: bytes.into(), close })
    }

    fn column(&self, column: usize) -> MutexGuard<'_, ColumnPages> {
        self.columns[column].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a page's header, or the data of the header before.
    fn put(&self, column: usize, part: Bytes) -> Result<()> {
        let mut pages = self.column(column);
        let Some(header) = pages.header.take() else {
            pages.header = Some(part);
            return Ok(());
        };
        let header = PageHeader::read(&header, part.len())?;
        let (page, head) = self.compressors.compress(&part, |data| {
            let mut page = Vec::with_capacity(header.max_length() + data.len());
            header.write(&mut page, data.len());
            let head = page.len();
            page.extend_from_slice(data);
            (page, head)
        })?;
        pages.sizes.plain += (header.length + part.len()) as u64;
        pages.sizes.compressed += page.len() as u64;
        pages.sizes.uncompressed += (head + part.len()) as u64;
        if header.is_dictionary {
            pages.dictionary = Some(page);
        } else {
            pages.data.push(page);
        }
        Ok(())
    }
}

/// Where the next page begins, in the chunk so far.
fn offset(chunk: &[u8]) -> i64 {
    (chunk.len() as u64).cast_signed()
}

/// A store of pages for each column writer.
#[derive(Debug)]
pub(super) struct PageStores(pub(super) Arc<Pages>);

impl PageStoreFactory for PageStores {
    fn create(&self, args: &PageStoreArgs<'_>) -> Result<Box<dyn PageStore>> {
        Ok(Box::new(ColumnStore { pages: self.0.clone(), column: args.column_index() }))
    }
}

struct ColumnStore {
    pages: Arc<Pages>,
    column: usize,
}

impl PageStore for ColumnStore {
    fn put(&mut self, part: Bytes) -> Result<PageKey> {
        self.pages.put(self.column, part)?;
        Ok(PageKey::new(0))
    }

    fn take(&mut self, _: PageKey) -> Result<Bytes> {
        Err(ParquetError::General("pages are written into the file as a chunk".into()))
    }

    fn memory_size(&self) -> usize {
        self.pages.sizes(self.column).compressed as usize
    }
}

/// The header of a plain page: in Thrift's compact protocol its fields 1 to 3 are its type, its size and its compressed
/// size, of which only the last is another once the page is compressed.
struct PageHeader<'h> {
    is_dictionary: bool,
    length: usize,
    /// The first two fields.
    before: &'h [u8],
    /// What follows the third.
    after: &'h [u8],
}

/// Thrift's compact protocol: the next field's number is one more, and it is an `i32`.
const NEXT_I32: u8 = 0x15;
/// A dictionary page's type.
const DICTIONARY_PAGE: u64 = 2;

impl<'h> PageHeader<'h> {
    fn read(header: &'h [u8], data_length: usize) -> Result<Self> {
        let field = |bytes: &'h [u8]| {
            bytes.split_first().filter(|(first, _)| **first == NEXT_I32).and_then(|(_, rest)| read_varint(rest))
        };
        let fields = field(header).and_then(|(kind, rest)| {
            let (size, rest) = field(rest)?;
            let (compressed, after) = field(rest)?;
            let before = &header[..header.len() - rest.len()];
            // Zigzag: twice a number that is not negative.
            let is_plain = size == compressed && size == 2 * data_length as u64;
            is_plain.then_some(Self { is_dictionary: kind == 2 * DICTIONARY_PAGE, length: header.len(), before, after })
        });
        fields.ok_or_else(|| {
            ParquetError::General("a column writer made a page whose header is not of a plain page".into())
        })
    }

    fn max_length(&self) -> usize {
        self.length + 1
    }

    fn write(&self, out: &mut Vec<u8>, compressed_length: usize) {
        out.extend_from_slice(self.before);
        out.push(NEXT_I32);
        write_varint(out, 2 * compressed_length as u64);
        out.extend_from_slice(self.after);
    }
}

/// A number in groups of seven bits, least first, and what follows it.
fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().take(5).position(|byte| byte & 0x80 == 0)?;
    let number = bytes[..=end].iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f));
    Some((number, &bytes[end + 1..]))
}

fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
