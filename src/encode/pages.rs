//! Counts the bytes of finished pages, a column: the Parquet writer tells its size only together with what is not
//! compressed yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parquet::arrow::arrow_writer::{InMemoryPageStore, PageKey, PageStore, PageStoreArgs, PageStoreFactory};
use parquet::errors::Result;

use super::schema::COLUMN_COUNT;

/// Bytes of finished pages of the open row group, by column.
#[derive(Clone, Debug, Default)]
pub(super) struct PageCounters(Arc<[AtomicU64; COLUMN_COUNT]>);

impl PageCounters {
    pub(super) fn bytes(&self, column: usize) -> u64 {
        self.0[column].load(Ordering::Relaxed)
    }

    pub(super) fn reset(&self) {
        for count in &*self.0 {
            count.store(0, Ordering::Relaxed);
        }
    }
}

/// Makes page stores that hold pages in memory, as the writer's own do, and count them.
#[derive(Debug)]
pub(super) struct PageCounter(PageCounters);

impl PageCounter {
    pub(super) fn new(counters: PageCounters) -> Self {
        Self(counters)
    }
}

impl PageStoreFactory for PageCounter {
    fn create(&self, args: &PageStoreArgs<'_>) -> Result<Box<dyn PageStore>> {
        let column = args.column_index();
        Ok(Box::new(CountedPages { pages: InMemoryPageStore::default(), counters: self.0.clone(), column }))
    }
}

struct CountedPages {
    pages: InMemoryPageStore,
    counters: PageCounters,
    column: usize,
}

impl PageStore for CountedPages {
    fn put(&mut self, page: Bytes) -> Result<PageKey> {
        self.counters.0[self.column].fetch_add(page.len() as u64, Ordering::Relaxed);
        self.pages.put(page)
    }

    fn take(&mut self, key: PageKey) -> Result<Bytes> {
        self.pages.take(key)
    }

    fn memory_size(&self) -> usize {
        self.pages.memory_size()
    }
}
