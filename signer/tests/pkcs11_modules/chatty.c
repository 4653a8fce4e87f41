/* A PKCS#11 library that passes everything on to another one, and prints, reads and counts as vendors' libraries do. Built by the tests:
   cc -shared -fPIC -DREAL='"…"' -DTRACE='"…"' */
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

/* The list of functions of PKCS#11 2.40: a version, then 68 functions in the order of the standard. */
struct list { unsigned char version[2]; void *functions[68]; };
enum { LOGIN = 18, SIGN_INIT = 42, SIGN = 43 };
typedef unsigned long rv;

static struct list *real, own;

static void note(const char *what) {
    FILE *file = fopen(TRACE, "a");
    if (file) {
        fprintf(file, "%s\n", what);
        fclose(file);
    }
}

__attribute__((constructor)) static void begin(void) {
    char byte;
    printf("Welcome to the library of a vendor, version 1.0\n");
    fflush(stdout);
    fprintf(stderr, "debug: loaded\n");
    /* One that asks whether to go on. */
    note(read(0, &byte, 1) > 0 ? "READ" : "EOF");
}

static rv login(unsigned long session, unsigned long user, void *pin, unsigned long len) {
    note("C_Login");
    printf("C_Login called\n");
    fflush(stdout);
    return ((rv (*)(unsigned long, unsigned long, void *, unsigned long))real->functions[LOGIN])(session, user, pin, len);
}

static rv sign_init(unsigned long session, void *mechanism, unsigned long key) {
    note("C_SignInit");
    return ((rv (*)(unsigned long, void *, unsigned long))real->functions[SIGN_INIT])(session, mechanism, key);
}

static rv sign(unsigned long session, void *data, unsigned long len, void *out, unsigned long *out_len) {
    int n;
    note(out ? "C_Sign" : "C_Sign length");
    for (n = 0; n < 100; n++)
        fprintf(stderr, "debug: a line of many, %d\n", n);
    return ((rv (*)(unsigned long, void *, unsigned long, void *, unsigned long *))real->functions[SIGN])(session, data, len, out, out_len);
}

rv C_GetFunctionList(struct list **list) {
    void *library = dlopen(REAL, RTLD_NOW | RTLD_LOCAL);
    rv (*get)(struct list **) = library ? (rv (*)(struct list **))dlsym(library, "C_GetFunctionList") : 0;
    if (!get || get(&real))
        return 5; /* CKR_GENERAL_ERROR */
    own = *real;
    own.functions[LOGIN] = (void *)login;
    own.functions[SIGN_INIT] = (void *)sign_init;
    own.functions[SIGN] = (void *)sign;
    *list = &own;
    return 0;
}
