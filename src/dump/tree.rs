//! What holds an image tree together: inventory, process tree, object IDs, statistics.
use std::time::Duration;

use super::Summary;
use super::freeze::Frozen;
use super::survey::Survey;
use crate::image::proto;

/// ID of the process's table of descriptors; 1 is the dumping program's own, with which nothing is shared.
pub const FILES_ID: u64 = 2;
/// ID of the set of control groups: whatever the restoring program is in.
pub const CGROUP_SET: u32 = 1;
/// Version of the image format: one common magic (CRTOOLS_IMAGES_V1_1).
const IMAGES_VERSION: u32 = 2;

/// The inventory: the dumping program's namespaces are the process's.
#[must_use]
pub fn inventory() -> proto::InventoryEntry {
    proto::InventoryEntry {
        img_version: IMAGES_VERSION,
        fdinfo_per_id: Some(true),
        root_ids: Some(object_ids(1)),
        ns_per_id: Some(true),
        root_cg_set: Some(CGROUP_SET),
        lsmtype: Some(proto::LsmType::NoLsm.into()),
        network_lock_method: Some(0),
        ..Default::default()
    }
}

/// The process's kernel objects: nothing is shared with anybody, and no namespace is its own.
#[must_use]
pub fn ids() -> proto::TaskKobjIdsEntry {
    object_ids(FILES_ID as u32)
}

fn object_ids(id: u32) -> proto::TaskKobjIdsEntry {
    proto::TaskKobjIdsEntry {
        vm_id: id,
        files_id: id,
        fs_id: id,
        sighand_id: id,
        pid_ns_id: Some(1),
        net_ns_id: Some(2),
        ipc_ns_id: Some(3),
        uts_ns_id: Some(4),
        time_ns_id: Some(5),
        mnt_ns_id: Some(6),
        user_ns_id: Some(7),
        cgroup_ns_id: Some(8),
    }
}

/// The process tree: one process, with its threads, the leader first.
#[must_use]
pub fn pstree(survey: &Survey, frozen: &Frozen) -> proto::PstreeEntry {
    proto::PstreeEntry {
        pid: survey.pid.unsigned_abs(),
        ppid: 0,
        pgid: survey.stat.pgrp.unsigned_abs(),
        sid: survey.stat.session.unsigned_abs(),
        threads: frozen.threads.iter().map(|thread| thread.tid.unsigned_abs()).collect(),
    }
}

/// `stats-dump`.
#[must_use]
pub fn stats([freezing, frozen, memory]: [Duration; 3], summary: &Summary) -> proto::StatsEntry {
    let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    proto::StatsEntry {
        dump: Some(proto::DumpStatsEntry {
            freezing_time: micros(freezing),
            frozen_time: micros(frozen),
            memdump_time: micros(memory),
            memwrite_time: micros(memory),
            pages_scanned: summary.pages.scanned,
            pages_skipped_parent: 0,
            pages_written: summary.pages.written,
            irmap_resolve: Some(0),
            pages_lazy: 0,
            page_pipes: Some(0),
            page_pipe_bufs: Some(0),
            shpages_scanned: Some(summary.pages.shared),
            shpages_skipped_parent: Some(0),
            shpages_written: Some(summary.pages.shared),
        }),
        restore: None,
    }
}
