use std::collections::HashSet;

use arrow_array::Array as _;
use arrow_array::cast::AsArray as _;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Encoding;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use super::*;
use crate::encode::ObjectEncoder;
use crate::encode::samples::{Sample, empty, generate, layout};

fn encode(samples: &[Sample], layout: &Layout) -> Bytes {
    let mut object = ObjectEncoder::new(layout).unwrap();
    for sample in samples {
        object.append(&sample.row());
    }
    object.finish().unwrap().bytes.join()
}

fn metadata(bytes: &Bytes) -> ParquetMetaData {
    ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required).parse_and_finish(bytes).unwrap()
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let samples = generate(3_000);
    assert_eq!(encode(&samples, &layout()), encode(&samples, &layout()));
}

#[test]
fn asking_for_sizes_between_rows_changes_no_byte() {
    let samples = generate(3_000);
    let mut object = ObjectEncoder::new(&layout()).unwrap();
    for sample in &samples {
        object.append(&sample.row());
        assert!(object.encoded_bytes() > 0 && object.memory_bytes() > 0);
    }
    assert_eq!(object.finish().unwrap().bytes.join(), encode(&samples, &layout()));
}

#[test]
fn a_batch_of_nulls_has_the_schema_of_every_other() {
    let nulls: Vec<_> = (0..10).map(empty).collect();
    let schema = |bytes: Bytes| ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().schema().clone();
    let all = [
        schema(encode(&nulls, &layout())),
        schema(encode(&generate(10), &layout())),
        schema(encode(&[], &layout())),
        schema(encode(&generate(10), &Layout { keep_raw: false, ..layout() })),
    ];
    for other in &all {
        assert_eq!(other, &schema::arrow_schema());
    }
}

#[test]
fn row_groups_close_at_their_bound_and_nowhere_else() {
    let mut sample = empty(0);
    sample.record.raw = "x".repeat(4 << 20).into();
    let bytes = encode(&vec![sample; 40], &layout());
    let rows: Vec<_> =
        metadata(&bytes).row_groups().iter().map(parquet::file::metadata::RowGroupMetaData::num_rows).collect();
    assert_eq!(rows, [16, 16, 8], "64 MiB are sixteen rows of 4 MiB");
}

#[test]
fn a_file_says_nothing_of_program_or_machine() {
    let bytes = encode(&generate(10), &layout());
    let metadata = metadata(&bytes);
    let file = metadata.file_metadata();
    assert_eq!(file.created_by(), Some(CREATED_BY));
    assert_eq!(file.version(), 1);
    assert!(file.key_value_metadata().is_none(), "no ARROW:schema");
}

#[test]
fn dictionaries_statistics_and_bloom_filters_are_where_the_table_says() {
    let bytes = encode(&generate(5_000), &layout());
    let metadata = metadata(&bytes);
    for group in metadata.row_groups() {
        for (column, chunk) in COLUMNS.iter().zip(group.columns()) {
            let encodings: HashSet<_> = chunk.encodings().collect();
            let dictionary =
                encodings.contains(&Encoding::RLE_DICTIONARY) || encodings.contains(&Encoding::PLAIN_DICTIONARY);
            assert_eq!(dictionary, column.dictionary, "{}", column.name);
            assert_eq!(chunk.statistics().is_some(), column.index != Index::None, "{}", column.name);
            assert_eq!(chunk.bloom_filter_offset().is_some(), column.index == Index::Bloom, "{}", column.name);
            assert!(chunk.offset_index_offset().is_some(), "{}", column.name);
            assert_eq!(chunk.column_index_offset().is_some(), column.index != Index::None, "{}", column.name);
        }
    }
}

#[test]
fn what_is_known_of_a_message_is_json_text_and_null_where_there_is_none() {
    let samples: Vec<_> = generate(2_500).into_iter().chain((0..3).map(empty)).collect();
    let mut found = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(encode(&samples, &layout())).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        let texts = batch.column_by_name("source_message").unwrap().as_string::<i32>();
        found.extend(texts.iter().map(|text| text.map(ToOwned::to_owned)));
        assert!(texts.null_count() > 0 && texts.null_count() < texts.len());
    }
    assert_eq!(found, samples.iter().map(|sample| sample.source_message.clone()).collect::<Vec<_>>());
}

#[test]
fn a_column_of_nulls_takes_no_more_than_its_place_in_the_footer() {
    let samples: Vec<_> = (0..50_000).map(|index| Sample { source_message: None, ..empty(index) }).collect();
    let bytes = encode(&samples, &layout());
    let metadata = metadata(&bytes);
    let chunk = metadata.row_group(0).column(schema::column_index("source_message").unwrap());
    assert!(chunk.compressed_size() < 300, "{}", chunk.compressed_size());
}

#[test]
fn the_bloom_filter_of_a_small_file_is_small_and_misses_nothing() {
    let samples = generate(100);
    let bytes = encode(&samples, &layout());
    let metadata = metadata(&bytes);
    let chunk = metadata.row_group(0).column(schema::column_index("log_id").unwrap());
    assert!(chunk.bloom_filter_length().unwrap() < 512, "{:?}", chunk.bloom_filter_length());
    let filter = parquet::bloom_filter::Sbbf::read_from_column_chunk(chunk, &bytes).unwrap().unwrap();
    assert!(samples.iter().all(|sample| filter.check(sample.record.log_id.as_deref().unwrap())));
    assert!((0..1_000).filter(|n| filter.check(format!("absent{n}").as_str())).count() < 50);
}

#[test]
fn a_level_that_the_compression_has_not_is_refused_by_name() {
    let refuse = |compression, compression_level| {
        ObjectEncoder::new(&Layout { compression, compression_level, ..layout() }).err().unwrap().to_string()
    };
    assert_eq!(refuse(Compression::Zstd, 23), "compression_level must be from 1 to 22, not 23");
    assert_eq!(refuse(Compression::Gzip, -1), "compression_level must be from 0 to 9, not -1");
}

/// Each page is compressed outside of its column writer; nobody can tell from the file.
#[test]
fn the_bytes_are_those_of_column_writers_that_compress_by_themselves() {
    let samples = generate(20_000);
    for (compression, compression_level) in
        [(Compression::Zstd, 3), (Compression::Gzip, 6), (Compression::Snappy, 0), (Compression::None, 0)]
    {
        let layout = Layout { compression, compression_level, ..layout() };
        let settings = ParquetSettings::new(&layout).unwrap();
        let properties = settings.properties.as_ref().clone().into_builder();
        let properties = Arc::new(properties.set_compression(settings.compressors.codec()).build());
        let mut file = SerializedFileWriter::new(Vec::new(), settings.root.clone(), properties).unwrap();
        let factory = ArrowRowGroupWriterFactory::new(&file, settings.arrow.clone());
        let mut group = RowGroup { columns: factory.create_column_writers(0).unwrap(), extent: Extent::default() };
        let mut chunk = Chunk::default();
        for sample in &samples {
            chunk.append(&sample.row(), &layout);
            if chunk.is_full() {
                group.write(&settings.arrow, &[chunk.finish()]).unwrap();
            }
        }
        group.write(&settings.arrow, &[chunk.finish()]).unwrap();
        let mut writer = file.next_row_group().unwrap();
        for column in group.columns {
            column.close().unwrap().append_to_row_group(&mut writer).unwrap();
        }
        writer.close().unwrap();
        assert!(encode(&samples, &layout) == file.into_inner().unwrap(), "{compression:?}");
    }
}
