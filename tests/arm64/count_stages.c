/* A plugin for qemu-user that counts the guest's instructions by stage, over all of its threads.
 * A thread says what it is at by lseek(777, STAGE, SEEK_SET); one that never does is at stage 0, as a decoder's own are.
 * STAGE 62 sets all counts to zero, 63 prints "stage N COUNT" for each on standard error.
 * Build: gcc -O2 -shared -fPIC -DAPI=1 (2 since QEMU 9). Debian's qemu-user comes without qemu-plugin.h, so what is used
 * of it is declared here.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define LSEEK 62 /* aarch64 */
#define MARKING 777
#define CELLS 1024
#define STAGES 16
#define BEGIN 62
#define END 63

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
typedef void (*on_translate)(plugin_id, struct qemu_plugin_tb *);
typedef void (*on_execute)(unsigned cpu, void *data);
typedef void (*on_cpu)(plugin_id, unsigned cpu);
typedef void (*on_syscall)(plugin_id, unsigned cpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, on_translate);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, on_execute, int flags, void *data);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, on_syscall);
void qemu_plugin_register_vcpu_init_cb(plugin_id, on_cpu);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

EXPORT int qemu_plugin_version = API;

static struct {
    unsigned stage;
    uint64_t executed[STAGES];
} cells[CELLS]; /* one a thread, which is a virtual CPU to qemu-user */

static void executes(unsigned cpu, void *instructions) {
    cells[cpu % CELLS].executed[cells[cpu % CELLS].stage] += (uintptr_t)instructions;
}

static void translates(plugin_id id, struct qemu_plugin_tb *block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(block, executes, 0, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void starts(plugin_id id, unsigned cpu) {
    (void)id;
    cells[cpu % CELLS].stage = 0; /* the number of one that ended is given again */
}

static void calls(plugin_id id, unsigned cpu, int64_t number, uint64_t file, uint64_t stage, uint64_t c, uint64_t d, uint64_t e,
                  uint64_t f, uint64_t g, uint64_t h) {
    (void)id, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number != LSEEK || file != MARKING) return;
    if (stage < STAGES) {
        cells[cpu % CELLS].stage = (unsigned)stage;
    } else if (stage == BEGIN) {
        for (int cell = 0; cell < CELLS; cell++) memset(cells[cell].executed, 0, sizeof cells[cell].executed);
    } else if (stage == END) {
        for (int one = 0; one < STAGES; one++) {
            uint64_t sum = 0;
            for (int cell = 0; cell < CELLS; cell++) sum += cells[cell].executed[one];
            fprintf(stderr, "stage %d %" PRIu64 "\n", one, sum);
        }
    }
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_init_cb(id, starts);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translates);
    qemu_plugin_register_vcpu_syscall_cb(id, calls);
    return 0;
}
