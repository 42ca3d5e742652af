/* A plugin for qemu-user that counts the guest's instructions between two marks; the guest marks by calling getppid().
 * Each mark after the first prints "marked COUNT" on standard error: what its thread executed since the mark before.
 * Build: gcc -O2 -shared -fPIC -DAPI=1 (2 since QEMU 9) -DGETPPID=173 (aarch64; 110 on x86-64).
 * Debian's qemu-user comes without qemu-plugin.h, so what is used of it is declared here.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
typedef void (*on_translate)(plugin_id, struct qemu_plugin_tb *);
typedef void (*on_execute)(unsigned cpu, void *data);
typedef void (*on_syscall)(plugin_id, unsigned cpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, on_translate);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, on_execute, int flags, void *data);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, on_syscall);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

EXPORT int qemu_plugin_version = API;

/* A guest's thread is a virtual CPU to qemu-user; each counts in a cell of its own, and only the marking one's is told:
 * an engine on one thread works on its caller's, and what its housekeeping threads do depends on the time of day. */
#define CELLS 1024
static uint64_t executed[CELLS];
static uint64_t at_last_mark;
static int marks;

static void executes(unsigned cpu, void *instructions) { executed[cpu % CELLS] += (uintptr_t)instructions; }

static void translates(plugin_id id, struct qemu_plugin_tb *block) {
    (void)id;
    void *instructions = (void *)(uintptr_t)qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, executes, 0, instructions);
}

static void calls(plugin_id id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                  uint64_t f, uint64_t g, uint64_t h) {
    (void)id, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number != GETPPID) return;
    uint64_t now = executed[cpu % CELLS];
    if (marks++) fprintf(stderr, "marked %" PRIu64 "\n", now - at_last_mark);
    at_last_mark = now;
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translates);
    qemu_plugin_register_vcpu_syscall_cb(id, calls);
    return 0;
}
