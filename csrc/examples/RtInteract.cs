// rtinteract for C#: rtinteract.h 1.1, all 21 functions, and a loop that uses them. Works under .NET, Mono and Unity; put
// librtinteract beside the program. Structs have the layout that tests/test_abi_header.py pins. What each function does, and on
// which thread it may be called, the header says.
using System;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;

public static class RtInteract
{
    const string Library = "rtinteract";
    public const uint AbiVersion = 0x00010001;
    public const int Ok = 0, NotReady = 1, Actor = 0, Reactor = 1, AxesUnity = 2;
    public const uint FootLock = 1, PushOut = 2, RootMotion = 4, Hands = 8, Contact = 16;

    [StructLayout(LayoutKind.Sequential)]
    public struct ModelDesc
    {
        public uint StructSize, Abi;
        public IntPtr Path, Data;
        public UIntPtr DataSize;
        public IntPtr Device, Precision;
        public int Threads, Reserved;
        public ulong VramLimit;
        public IntPtr PromptBank, PythonExecutable, PythonLibrary, Log, LogUser;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct SkeletonDesc
    {
        public uint StructSize;
        public int Axes;
        public IntPtr Preset;
        public int JointCount;
        public float MetresPerUnit;
        public IntPtr Names, Parents, RestTranslations, RestRotations;
        [MarshalAs(UnmanagedType.ByValArray, SizeConst = 9)] public float[] Basis;
        public int Reserved;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct SessionDesc
    {
        public uint StructSize, Abi;
        public IntPtr Actor, Reactor, Prompt;
        public ulong Seed;
        public int Window, Horizon, Hop, Iterations;
        public uint Flags;
        public float BlendS, SettleS, IdleAfterS;
        public IntPtr Idle;
        public int IdleCount, Reserved;
        public float FootLock, PushOut, Hands, ReservedStrength;
    }

    // Blittable: it crosses without a copy, and pins nothing but the caller's own array.
    [StructLayout(LayoutKind.Sequential)]
    public struct Pose
    {
        public uint StructSize;
        public int JointCount;
        public float X, Y, Z;
        public int Reserved;
        public IntPtr Rotations;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct PullInfo
    {
        public uint StructSize;
        public int State;
        public ulong Plan;
        public double PlanAgeS;
        public float WayX, WayY, WayZ, TurnW, TurnX, TurnY, TurnZ, FootSlide, Penetration;
        public int Reserved;
    }

    // Percentiles are p50, p95 and p99.
    [StructLayout(LayoutKind.Sequential)]
    public struct Stats
    {
        public uint StructSize;
        public int State;
        public ulong Pushed, Pulled, RejectedPoses, RejectedTimes, LostPoses, LostFrames, TimeJumps, Hops, FailedHops, Late, Fallbacks;
        public double Push50, Push95, Push99, Pull50, Pull95, Pull99, Hop50, Hop95, Hop99, Reaction50, Reaction95, Reaction99;
    }

    [DllImport(Library)] public static extern uint rti_abi_version();
    [DllImport(Library)] public static extern IntPtr rti_build_info();
    [DllImport(Library)] public static extern IntPtr rti_status_name(int status);
    [DllImport(Library)] public static extern UIntPtr rti_last_error(byte[] text, UIntPtr capacity);
    [DllImport(Library)] public static extern int rti_model_load(ref ModelDesc desc, out IntPtr model);
    [DllImport(Library)] public static extern int rti_model_wait(IntPtr model, double timeout);
    [DllImport(Library)] public static extern int rti_model_save_prompts(IntPtr model, IntPtr[] texts, int count, byte[] path);
    [DllImport(Library)] public static extern void rti_model_destroy(ref IntPtr model);
    [DllImport(Library)] public static extern int rti_session_create(IntPtr model, ref SessionDesc desc, out IntPtr session);
    [DllImport(Library)] public static extern int rti_session_warmup(IntPtr session, double timeout);
    [DllImport(Library)] public static extern int rti_session_set_prompt(IntPtr session, byte[] text);
    [DllImport(Library)] public static extern int rti_session_set_flags(IntPtr session, uint flags);
    [DllImport(Library)] public static extern int rti_session_push_pose(IntPtr session, int person, double time, ref Pose pose);
    [DllImport(Library)] public static extern int rti_session_ready(IntPtr session);
    [DllImport(Library)] public static extern int rti_session_pull_pose(IntPtr session, double time, ref Pose pose, ref PullInfo info);
    [DllImport(Library)] public static extern int rti_session_stats(IntPtr session, ref Stats stats);
    [DllImport(Library)] public static extern UIntPtr rti_session_last_error(IntPtr session, byte[] text, UIntPtr capacity);
    [DllImport(Library)] public static extern int rti_session_joint_count(IntPtr session, int person);
    [DllImport(Library)] public static extern IntPtr rti_session_joint_name(IntPtr session, int person, int joint);
    [DllImport(Library)] public static extern int rti_session_reset(IntPtr session);
    [DllImport(Library)] public static extern void rti_session_destroy(ref IntPtr session);

    // Texts go in as UTF-8 with a zero at the end.
    public static byte[] Utf8(string text)
    {
        return Encoding.UTF8.GetBytes(text + "\0");
    }

    public static string LastError()
    {
        var text = new byte[512];
        rti_last_error(text, (UIntPtr)text.Length);
        return Encoding.UTF8.GetString(text, 0, Array.IndexOf(text, (byte)0));
    }

    static void Check(int status)
    {
        if (status < 0) throw new InvalidOperationException(LastError());
    }

    // One pair of Unity humanoids. Without a model the reactor stands, so the game's loop is the same.
    public static int Main(string[] arguments)
    {
        var model = IntPtr.Zero;
        var load = new ModelDesc { StructSize = (uint)Marshal.SizeOf<ModelDesc>(), Abi = AbiVersion };
        if (arguments.Length == 0) Check(rti_model_load(ref load, out model));

        var preset = Marshal.StringToHGlobalAnsi("unity");
        var skeleton = new SkeletonDesc { StructSize = (uint)Marshal.SizeOf<SkeletonDesc>(), Axes = AxesUnity, Preset = preset,
                                          MetresPerUnit = 1, Basis = new float[9] };
        var skeletonAt = Marshal.AllocHGlobal(Marshal.SizeOf<SkeletonDesc>());
        Marshal.StructureToPtr(skeleton, skeletonAt, false);
        var desc = new SessionDesc { StructSize = (uint)Marshal.SizeOf<SessionDesc>(), Abi = AbiVersion, Actor = skeletonAt,
                                     Flags = FootLock, BlendS = 0.25f, SettleS = 0.4f, IdleAfterS = 2, FootLock = 1, PushOut = 1,
                                     Hands = 1 };
        Check(rti_session_create(model, ref desc, out var session));
        Marshal.FreeHGlobal(skeletonAt);
        Marshal.FreeHGlobal(preset);
        Check(rti_session_set_prompt(session, Utf8("two people shake hands")));
        Check(rti_session_set_flags(session, FootLock | PushOut | Contact));
        // A loading screen waits here; without, the reactor stands until the first plan.
        if (model != IntPtr.Zero) Check(rti_session_warmup(session, 120));

        int joints = rti_session_joint_count(session, Reactor);
        var rotations = new float[4 * joints];
        for (int j = 0; j < joints; ++j) rotations[4 * j] = 1;
        // The actor's pose goes in and the reactor's comes out through one array; a game has two.
        var pin = GCHandle.Alloc(rotations, GCHandleType.Pinned);
        var pose = new Pose { StructSize = (uint)Marshal.SizeOf<Pose>(), JointCount = joints, Y = 0.95f,
                              Rotations = pin.AddrOfPinnedObject() };
        var info = new PullInfo { StructSize = (uint)Marshal.SizeOf<PullInfo>() };
        for (int tick = 0; tick < 120; ++tick)
        {
            double time = tick / 60.0;
            Check(rti_session_push_pose(session, Actor, time, ref pose));
            Check(rti_session_pull_pose(session, time, ref pose, ref info));
            Thread.Sleep(16);
        }
        var stats = new Stats { StructSize = (uint)Marshal.SizeOf<Stats>() };
        Check(rti_session_stats(session, ref stats));
        string root = Marshal.PtrToStringAnsi(rti_session_joint_name(session, Reactor, 0));
        Console.WriteLine($"{joints} joints from {root} on, the reactor stands at {pose.X:F2} {pose.Y:F2} {pose.Z:F2}");
        Console.WriteLine($"{stats.Pushed} pushed, {stats.Pulled} pulled, plan {info.Plan}, state {info.State}; " +
                          $"push {stats.Push50:F1} us, pull {stats.Pull50:F1} us");
        pin.Free();
        rti_model_destroy(ref model);
        rti_session_destroy(ref session);
        return 0;
    }
}
