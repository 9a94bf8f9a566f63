//! Images that fit another machine, or another moment: executables, parents, page sizes, capabilities, vDSOs, memfds.
use std::fs;

use isamorph::image::{ImageDir, PageWriter, proto, record_parent, vma};

use super::Dumped;

/// Changes the file that is the process's executable, in the images.
fn edit_executable(dumped: &Dumped, change: impl FnOnce(&mut proto::RegFileEntry)) {
    let mm = dumped.tree().read_one::<proto::MmEntry>(dumped.pid as u64).unwrap();
    dumped.edit::<proto::FileEntry>(None, |files| {
        let file = files.iter_mut().find(|f| f.id == mm.exe_file_id).unwrap();
        change(file.edit().unwrap().reg.as_mut().unwrap());
    });
}

#[test]
fn an_executable_that_is_missing_or_another_one_is_named() {
    let dumped = Dumped::new("root");
    let whole = fs::read(dumped.images().join("files.img")).unwrap();
    edit_executable(&dumped, |reg| reg.name = "/nowhere/state".into());
    dumped.refused("/nowhere/state: no such file here; the process had it open, so it must be brought along");
    fs::write(dumped.images().join("files.img"), &whole).unwrap();
    // CRIU records it.
    edit_executable(&dumped, |reg| reg.build_id = vec![1, 2, 3, 4, 5]);
    dumped.refused("bring along the file that the process ran");
    fs::write(dumped.images().join("files.img"), &whole).unwrap();
    edit_executable(&dumped, |reg| reg.size = reg.size.map(|size| size + 1));
    dumped.refused("bring back the file as it was");
    fs::write(dumped.images().join("files.img"), &whole).unwrap();
    dumped.runs();
}

#[test]
fn another_page_size_is_refused_by_name() {
    let dumped = Dumped::new("root");
    dumped.edit::<proto::MmEntry>(dumped.pid as u64, |mm| {
        let auxv = &mut mm[0].edit().unwrap().mm_saved_auxv;
        let at = auxv.chunks(2).position(|pair| pair[0] == 6).unwrap();
        assert_eq!(auxv[2 * at + 1], 4096);
        auxv[2 * at + 1] = 65536;
    });
    dumped.refused("pages of 65536 bytes: only processes with pages of 4096 bytes can be restored");
}

#[test]
fn a_changed_parent_is_refused_with_its_path() {
    let dumped = Dumped::new("root");
    let whole = dumped.dir.path().join("whole");
    fs::rename(dumped.images(), &whole).unwrap();
    let parent = ImageDir::open(&whole).unwrap();
    let child = ImageDir::create(dumped.images()).unwrap();
    let pid = dumped.pid as u64;
    for name in parent.list().unwrap().iter().filter(|n| n.ends_with(".img") && **n != format!("pagemap-{pid}.img")) {
        fs::copy(whole.join(name), dumped.images().join(name)).unwrap();
    }
    child.link_parent(&whole).unwrap();
    let (_, runs) = isamorph::image::read_runs(&parent, isamorph::image::ImageKind::Pagemap, pid).unwrap();
    let mut writer = PageWriter::create(&child, pid, 77).unwrap();
    runs.iter().for_each(|run| writer.in_parent(run.addr, run.pages).unwrap());
    writer.finish().unwrap();
    record_parent(&child, &parent).unwrap();

    let core = whole.join(format!("core-{pid}.img"));
    let before = fs::read(&core).unwrap();
    let mut changed = parent.read::<proto::CoreEntry>(pid).unwrap();
    changed[0].edit().unwrap().tc.as_mut().unwrap().exit_code ^= 1;
    parent.write(pid, &changed).unwrap();
    dumped.refused(&format!("{}: the parent tree was changed", whole.display()));
    dumped.refused("--flatten");
    fs::write(&core, before).unwrap();
    dumped.runs();
}

#[test]
fn capabilities_that_are_not_here_are_refused_or_dropped_on_request() {
    let dumped = Dumped::new("root");
    // One that no kernel has, so that nobody who runs this test does.
    const NEW: u32 = 1 << (60 - 32);
    dumped.edit_core(|c| {
        let creds = c.thread_core.as_mut().unwrap().creds.as_mut().unwrap();
        for set in [&mut creds.cap_prm, &mut creds.cap_eff, &mut creds.cap_bnd] {
            set.resize(2, 0);
            set[1] |= NEW;
        }
    });
    dumped.refused("capability 60 in its permitted set");
    dumped.refused("--drop-missing-caps");
    let mut command = dumped.restore();
    let output = dumped.run_as(command.arg("--drop-missing-caps"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(42), "{said}");
    assert!(said.contains(&format!("process {} goes on without capability 60", dumped.pid)), "{said}");
}

#[test]
fn functions_of_another_kernels_vdso_lead_to_this_ones() {
    let dumped = Dumped::new("root");
    let id = dumped.pid as u64;
    let mm = dumped.tree().read_one::<proto::MmEntry>(id).unwrap();
    let old = mm.vmas.iter().find(|v| v.status & vma::VDSO != 0).expect("the dump has no vDSO");
    let old = (old.start, old.end);
    // Without its data, the old code cannot work, and does not fit this kernel's any more.
    dumped.edit::<proto::MmEntry>(id, |mm| mm[0].edit().unwrap().vmas.retain(|v| v.status & vma::VVAR == 0));
    let mut command = dumped.restore();
    let child = command.spawn().unwrap();
    super::wait_for(&dumped.pidfile(), &dumped.pid.to_string());
    // `state` asks for the time of day every millisecond.
    std::thread::sleep(std::time::Duration::from_millis(100));
    let maps = fs::read_to_string(format!("/proc/{}/maps", dumped.pid)).unwrap();
    let line = |start: &str| maps.lines().find(|l| l.starts_with(start)).map(str::to_owned);
    let kept = line(&format!("{:x}-{:x} r-xp 00000000 00:00 0", old.0, old.1)).unwrap_or_else(|| panic!("{maps}"));
    assert!(!kept.ends_with("[vdso]"), "{maps}");
    assert_eq!(maps.lines().filter(|l| l.ends_with("[vdso]")).count(), 1, "{maps}");

    // What has been restored so can be dumped and restored again.
    let again = dumped.dir.path().join("again");
    let dump = std::process::Command::new(env!("CARGO_BIN_EXE_isamorph"))
        .args(["dump", "--no-park", "-t", &dumped.pid.to_string(), "-D"])
        .arg(&again)
        .output()
        .unwrap();
    assert!(dump.status.success(), "dump: {}", String::from_utf8_lossy(&dump.stderr));
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(128 + 9));
    fs::remove_dir_all(dumped.images()).unwrap();
    fs::remove_file(dumped.pidfile()).unwrap();
    fs::rename(again, dumped.images()).unwrap();
    dumped.runs();
}

/// Makes the shared anonymous memory of the images a memfd, as CRIU 3.17.1 does.
fn as_memfd(dumped: &Dumped, name: &str) {
    let mut size = 0;
    let mut shmid = 0;
    dumped.edit::<proto::MmEntry>(dumped.pid as u64, |mm| {
        for v in mm[0].edit().unwrap().vmas.iter_mut().filter(|v| v.status & vma::ANON_SHARED != 0) {
            shmid = u32::try_from(v.shmid).unwrap();
            size = size.max(v.pgoff + (v.end - v.start));
            v.status = v.status & !vma::ANON_SHARED | vma::FILE_SHARED | vma::MEMFD;
            v.shmid = 900;
            v.fdflags = Some(nix::libc::O_RDWR as u32);
        }
    });
    assert_eq!(size, 4 * 4096);
    let flags = nix::libc::O_RDWR as u32;
    let memfd = proto::MemfdFileEntry { id: 900, flags, inode_id: 5, ..Default::default() };
    let file =
        proto::FileEntry { r#type: proto::FdType::Memfd.into(), id: 900, memfd: Some(memfd), ..Default::default() };
    dumped.edit::<proto::FileEntry>(None, |files| files.push(file.into()));
    let inode = proto::MemfdInodeEntry { name: name.into(), size, shmid, inode_id: 5, ..Default::default() };
    dumped.edit::<proto::MemfdInodeEntry>(None, |inodes| inodes.push(inode.into()));
}

#[test]
fn memfds_come_back_and_the_kernels_own_are_shared_memory_again() {
    for (name, wanted) in [("/dev/zero", "/dev/zero (deleted)"), ("a name", "/memfd:a name (deleted)")] {
        let dumped = Dumped::new("root");
        as_memfd(&dumped, name);
        let child = dumped.restore().spawn().unwrap();
        super::wait_for(&dumped.pidfile(), &dumped.pid.to_string());
        let maps = fs::read_to_string(format!("/proc/{}/maps", dumped.pid)).unwrap();
        assert_eq!(maps.lines().filter(|l| l.ends_with(wanted)).count(), 4, "{maps}");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(dumped.pid), nix::sys::signal::Signal::SIGUSR2).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = fs::read_to_string(dumped.dir.path().join("out")).unwrap();
        assert_eq!(output.status.code(), Some(42), "{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    // Without the object there is nothing to map.
    let dumped = Dumped::new("root");
    as_memfd(&dumped, "a name");
    fs::remove_file(dumped.images().join("memfd.img")).unwrap();
    dumped.refused("memfd.img has no object 0x5");
}
