//! What a disk does is in the trace. A process of its own: threads without a subscriber can switch off events for all.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use monosign::seams::Open;
use monosign_scenarios::disk::{HostDisk, Loss};
use monosign_scenarios::reach::Reach;
use monosign_scenarios::scenario::{DiskFault, SpanRange};
use monosign_scenarios::streams::Streams;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

thread_local! {
    static EVENTS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Collect;

impl<S: tracing::Subscriber> Layer<S> for Collect {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                write!(self.0, " {}={value:?}", field.name()).expect("room");
            }
        }
        let mut line = Line(event.metadata().target().into());
        event.record(&mut line);
        EVENTS.with_borrow_mut(|events| events.push(line.0));
    }
}

#[test]
fn each_effect_is_traced() {
    let body = async {
        let latency = SpanRange::always(Duration::ZERO);
        let disk = HostDisk::new("signer", latency, Streams::new(1).of("disk/signer"), Reach::default());
        let file = disk.mount().open(Path::new("/record"), Open::New).await.expect("new");
        file.write_at(3, b"data").await.expect("written");
        disk.set_fault(Some(DiskFault::SyncError));
        file.sync_data().await.expect_err("failed");
        disk.power_cut(Loss::All);
    };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(Collect), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), body);
    });
    let expected = [
        ("create", "/record", 0, 0, true),
        ("write_at", "/record", 3, 4, true),
        ("sync_data", "/record", 0, 0, false),
        ("power cut", "/", 0, 0, true),
    ];
    let line = |(op, path, offset, len, ok)| {
        format!(r#"sim::disk host="signer" op="{op}" path={path} offset={offset} len={len} ok={ok}"#)
    };
    assert_eq!(EVENTS.take(), expected.map(line));
}
