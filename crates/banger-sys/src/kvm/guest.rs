//! The probe's guest and the loop that runs it. Only the probe's child process calls this.

use std::io::Write;
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use super::Stage;

/// The guest's memory: one large page, mapped to itself.
const MEMORY: usize = 2 << 20;
/// Where the code lies; the assembly below has the number too.
const CODE: usize = 0x8000;
const PML4: usize = 0x1000;
const PDPT: usize = 0x2000;
const PD: usize = 0x3000;
/// Present and writable; with PAGE_LARGE an entry of 2 MiB.
const PAGE: u64 = 0b11;
const PAGE_LARGE: u64 = 1 << 7;
/// The port that the guest writes to; the assembly has it too.
const PORT: u16 = 0x510;
/// What the 32-bit code writes.
const MARK: u32 = 0xb32;
/// How often the 64-bit code writes a new value: several exits and entries.
const ROUNDS: usize = 4;
/// Steps of a round, of six instructions each; the assembly has both numbers too.
const STEPS: u32 = 4000;
/// The fastest round must take less. A processor needs some 15 µs and a nested exit 100 µs; an
/// interpreter in the host's kernel 20 ms and more.
const ROUND_LIMIT: Duration = Duration::from_millis(2);
/// A guest that exits more often than this does not do what it should.
const MAX_EXITS: usize = 64;

// The steps of every operating system's entry to 64-bit mode: Intel SDM volume 3A, 10.8.5.
std::arch::global_asm!(
    "
    .pushsection .rodata
    .globl banger_probe_start, banger_probe_end
    .balign 16
banger_probe_start:
    .code16
    cli
    lgdtl %cs:(.Lgdt_pointer - banger_probe_start + 0x8000)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x08, $(.Lprotected - banger_probe_start + 0x8000)

    .code32
.Lprotected:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $0x7000, %esp
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $0x1000, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    movw $0x510, %dx
    movl $0xb32, %eax
    outl %eax, %dx
    ljmpl $0x18, $(.Llong - banger_probe_start + 0x8000)

    .code64
.Llong:
    movabsq $0x9e3779b97f4a7c15, %rbx
    movq $1, %rsi
    movl $4, %edi
.Lround:
    movl $4000, %ecx
.Lstep:
    imulq %rbx, %rsi
    addq $1, %rsi
    pushq %rsi
    popq %rsi
    decl %ecx
    jnz .Lstep
    movq %rsi, %rax
    shrq $32, %rax
    movw $0x510, %dx
    outl %eax, %dx
    decl %edi
    jnz .Lround
    hlt

    .balign 8
.Lgdt:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00af9b000000ffff
.Lgdt_pointer:
    .word 31
    .long .Lgdt - banger_probe_start + 0x8000
    .balign 16
banger_probe_end:
    .code64
    .popsection
    ",
    options(att_syntax)
);

unsafe extern "C" {
    static banger_probe_start: u8;
    static banger_probe_end: u8;
}

/// What ends the probe early: the word of the line, and its text.
struct Verdict(&'static str, String);

/// Writes the lines that the parent reads.
pub(super) fn run(out: &mut impl Write) {
    if let Err(Verdict(word, text)) = probe(out) {
        say(out, word, &text);
    }
}

fn probe(out: &mut impl Write) -> Result<(), Verdict> {
    let kvm = Kvm::new().map_err(|e| match e.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Verdict("no-device", String::new()),
        libc::EACCES | libc::EPERM => Verdict("no-permission", String::new()),
        _ => unsupported("open /dev/kvm", e),
    })?;
    let before = Instant::now();
    let vm = kvm.create_vm().map_err(|e| unsupported("make a VM", e))?;
    say(out, "created", &before.elapsed().as_micros().to_string());
    give_memory(&vm).map_err(|e| unsupported("give a VM memory", e))?;
    // Older Intel CPUs need three pages for 16-bit mode; the others ignore them.
    let _ = vm.set_tss_address(0xfffb_d000);
    let mut vcpu = vm
        .create_vcpu(0)
        .map_err(|e| unsupported("make a virtual CPU", e))?;
    set_up(&kvm, &vcpu).map_err(|e| unsupported("set up a virtual CPU", e))?;
    stage(out, Stage::Start);
    execute(&mut vcpu, out)
}

fn unsupported(step: &str, e: kvm_ioctls::Error) -> Verdict {
    Verdict("unsupported", format!("cannot {step}: {e}"))
}

fn stage(out: &mut impl Write, stage: Stage) {
    say(out, "stage", stage.as_str());
}

fn say(out: &mut impl Write, word: &str, text: &str) {
    // A parent that is gone reads nothing.
    let _ = writeln!(out, "{word} {text}").and_then(|()| out.flush());
}

fn give_memory(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: a new mapping at an address of the kernel's choice.
    let memory = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            MEMORY,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    };
    let memory: *mut u8 = memory
        .map_err(|e| kvm_ioctls::Error::new(e.raw_os_error()))?
        .cast();
    let put = |at: usize, value: u64| {
        let bytes = value.to_le_bytes();
        // SAFETY: the callers' addresses plus 8 are below MEMORY, and no guest runs yet.
        unsafe {
            memory
                .wrapping_add(at)
                .copy_from_nonoverlapping(bytes.as_ptr(), 8)
        };
    };
    put(PML4, PDPT as u64 | PAGE);
    put(PDPT, PD as u64 | PAGE);
    put(PD, PAGE | PAGE_LARGE);
    let start = &raw const banger_probe_start;
    let length = (&raw const banger_probe_end).addr() - start.addr();
    // SAFETY: the code is `length` bytes of this program's read-only data, less than a page,
    // and CODE plus a page is below MEMORY.
    unsafe { memory.wrapping_add(CODE).copy_from_nonoverlapping(start, length) };
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: MEMORY as u64,
        userspace_addr: memory.addr() as u64,
    };
    // SAFETY: the mapping is MEMORY bytes long and stays until the process ends; this program
    // does not touch it while the guest runs.
    unsafe { vm.set_user_memory_region(region) }
}

fn set_up(kvm: &Kvm, vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    // Without it the virtual CPU has no 64-bit mode, and setting EFER.LME faults.
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    let mut sregs = vcpu.get_sregs()?;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.get_regs()?;
    regs.rip = CODE as u64;
    regs.rflags = 2;
    vcpu.set_regs(&regs)
}

fn execute(vcpu: &mut VcpuFd, out: &mut impl Write) -> Result<(), Verdict> {
    let mut expected = expected().into_iter();
    let mut fastest = Duration::MAX;
    let wrong = |what: String| Err(Verdict("failed", what));
    for _ in 0..MAX_EXITS {
        let before = Instant::now();
        match vcpu.run() {
            Ok(VcpuExit::IoOut(PORT, data)) => {
                let value = data.try_into().map(u32::from_le_bytes);
                match (value, expected.next()) {
                    (Ok(MARK), Some(MARK)) => stage(out, Stage::Protected),
                    (Ok(value), Some(right)) if value == right => {
                        fastest = fastest.min(before.elapsed());
                    }
                    _ => return wrong("a guest computes wrong values".into()),
                }
            }
            Ok(VcpuExit::Hlt) if expected.next().is_none() => {
                return judge_speed(fastest, out);
            }
            Ok(exit) => return wrong(format!("a guest ends with {exit:?}")),
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(e) => return wrong(format!("a guest cannot be run: {e}")),
        }
    }
    wrong("a guest exits without end".into())
}

/// Right results are not enough: at an interpreter's speed no kernel boots in useful time.
fn judge_speed(round: Duration, out: &mut impl Write) -> Result<(), Verdict> {
    if round < ROUND_LIMIT {
        stage(out, Stage::Long);
        return Ok(());
    }
    let millions = f64::from(STEPS) * 6.0 / 1e6 / round.as_secs_f64();
    Err(Verdict(
        "failed",
        format!(
            "its 64-bit code runs at {millions:.1} million instructions a second, so the host interprets it"
        ),
    ))
}

/// The values that the guest must write, in order.
fn expected() -> Vec<u32> {
    let mut values = vec![MARK];
    let mut value: u64 = 1;
    for _ in 0..ROUNDS {
        for _ in 0..STEPS {
            value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        }
        values.push(u32::try_from(value >> 32).unwrap_or(0));
    }
    values
}
