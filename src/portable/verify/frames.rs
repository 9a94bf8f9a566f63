//! Call-frame information of every function, to hold against what the code does.
use super::abi::{Abi, from_dwarf};
use super::insn::Reg;
use super::values::{State, Value};
use crate::portable::{Error, Executable, Saved};
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, LittleEndian, RegisterRule, UnwindContext, UnwindSection,
};
use isamorph_arch::DwarfReg;
use std::collections::HashMap;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Call-frame information of an executable.
pub struct Frames<'a> {
    section: EhFrame<Slice<'a>>,
    bases: BaseAddresses,
    by_start: HashMap<u64, gimli::FrameDescriptionEntry<Slice<'a>>>,
}

/// One row of a function's table.
#[derive(Clone, Debug)]
pub struct Row {
    start: u64,
    end: u64,
    cfa: (Reg, i64),
    saved: Vec<(Reg, i64)>,
}

impl<'a> Frames<'a> {
    /// Indexes the section by function.
    pub fn new(executable: &'a Executable) -> Result<Self, Error> {
        let (bytes, addr) = executable.eh_frame()?;
        let section = EhFrame::new(bytes, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(addr.0);
        let mut by_start = HashMap::new();
        let mut entries = section.entries(&bases);
        let bad = |error: gimli::Error| Error::Elf(format!("eh_frame: {error}"));
        while let Some(entry) = entries.next().map_err(bad)? {
            if let CieOrFde::Fde(partial) = entry {
                let fde =
                    partial.parse(|section, bases, offset| section.cie_from_offset(bases, offset)).map_err(bad)?;
                by_start.insert(fde.initial_address(), fde);
            }
        }
        Ok(Self { section, bases, by_start })
    }

    /// The rows of the function at an address.
    pub fn rows(&self, abi: &Abi, function: u64, context: &mut UnwindContext<usize>) -> Result<Vec<Row>, String> {
        let fde = self.by_start.get(&function).ok_or("the function has none")?;
        let mut table = fde.rows(&self.section, &self.bases, context).map_err(|e| e.to_string())?;
        let mut rows = Vec::new();
        while let Some(row) = table.next_row().map_err(|e| e.to_string())? {
            let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else {
                return Err(format!("the CFA at {:#x} is an expression", row.start_address()));
            };
            let known = |register: gimli::Register| {
                from_dwarf(abi.isa, DwarfReg(register.0)).ok_or_else(|| format!("register {} is described", register.0))
            };
            let mut saved = Vec::new();
            for (register, rule) in row.registers() {
                match rule {
                    RegisterRule::Offset(offset) => saved.push((known(*register)?, *offset)),
                    RegisterRule::SameValue | RegisterRule::Undefined => {}
                    _ => return Err(format!("the rule of register {} is not an offset", register.0)),
                }
            }
            saved.sort_unstable();
            rows.push(Row {
                start: row.start_address(),
                end: row.end_address(),
                cfa: (known(*register)?, *offset),
                saved,
            });
        }
        Ok(rows)
    }
}

/// Holds the row of a call against the state after it. Gives the saved registers.
pub fn check(abi: &Abi, rows: &[Row], ret: u64, state: &State) -> Result<Vec<Saved>, String> {
    let pc = ret - 1;
    let row = rows.iter().find(|row| row.start <= pc && pc < row.end);
    let row = row.ok_or_else(|| format!("it has no row for {pc:#x}"))?;
    let (register, offset) = row.cfa;
    match state.reg(register) {
        Value::Cfa(distance) if distance.wrapping_add(offset) == 0 => {}
        value => {
            return Err(format!(
                "the CFA is said to be {}{offset:+}, but that register holds {value}",
                abi.name(register)
            ));
        }
    }
    let mut saved = Vec::with_capacity(row.saved.len());
    for (reg, offset) in &row.saved {
        let value = state.cell(*offset, 8);
        if value != Value::Caller(*reg) {
            return Err(format!("{} is said to be saved at CFA{offset:+}, where there is {value}", abi.name(*reg)));
        }
        if *reg != abi.return_address || abi.entry_sp == 0 {
            let cfa_off = i32::try_from(*offset).map_err(|_| format!("CFA{offset:+} is too far away"))?;
            saved.push(Saved { reg: abi.dwarf(*reg), cfa_off });
        }
    }
    let said = |reg: Reg| row.saved.iter().any(|(saved, _)| *saved == reg);
    if !said(abi.return_address) {
        return Err("the return address is not said to be saved".into());
    }
    for reg in abi.callee_saved.iter().filter(|reg| !said(**reg)) {
        if state.reg(*reg) != Value::Caller(*reg) {
            return Err(format!("{} is not said to be saved, but holds {}", abi.name(*reg), state.reg(*reg)));
        }
    }
    Ok(saved)
}
